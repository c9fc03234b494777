// From accumulators to outputs, per channel: (1), (2), (3), and what pooling (12), (13) and rescale (16), (17) vary.
#pragma once

#include <cstdint>
#include <vector>

#include "fixed_point.h"
#include "words.h"

namespace bpu {

// y = sat_n((mid(acc + before >> accu) * scale + half) >> right), then ReLU. The arrays have one entry per channel.
struct Requantizer {
  std::vector<int64_t> before;  // bias, compensation or rounding of the first shift
  std::vector<int32_t> accu;
  std::vector<int32_t> scale;
  std::vector<int32_t> right;
  bool rounds;             // half up at the second shift, otherwise floor
  bool saturates_between;  // mid: to int16, as (1) has it, or not at all, as (17)
  bool wide;               // int32 output (2): neither first shift nor scale
  bool relu;
  int64_t bits;

  static Requantizer read(Words& words) {
    Requantizer found;
    found.before = words.array<int64_t>();
    found.accu = words.array<int32_t>();
    found.scale = words.array<int32_t>();
    found.right = words.array<int32_t>();
    found.rounds = words.next() != 0;
    found.saturates_between = words.next() != 0;
    found.wide = words.next() != 0;
    found.relu = words.next() != 0;
    found.bits = words.next();
    const std::size_t size = found.before.size();
    if (found.accu.size() != size || found.scale.size() != size || found.right.size() != size) {
      throw BadPlan("the parameters of a requantization differ in number");
    }
    return found;
  }

  int64_t operator()(int64_t acc, int64_t channel) const {
    const auto c = static_cast<std::size_t>(channel);
    acc += before[c];
    const int64_t rounding = rounds ? half(right[c]) : 0;
    int64_t value = acc;
    if (wide) {
      value = (acc + rounding) >> right[c];
    } else {
      const int64_t shifted = acc >> accu[c];
      value = ((saturates_between ? saturate(shifted, 16) : shifted) * scale[c] + rounding) >> right[c];
    }
    value = saturate(value, bits);
    return relu ? std::max<int64_t>(value, 0) : value;
  }
};

}  // namespace bpu
