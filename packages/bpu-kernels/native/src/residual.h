// The residual of a layer with weights, read per channel: (6).
#pragma once

#include <vector>

#include "fixed_point.h"
#include "tensor.h"
#include "words.h"

namespace bpu {

struct Residual {
  bool given = false;
  Tensor tensor{};
  std::vector<int32_t> scale;
  std::vector<int32_t> shift;  // left; negative ones floor

  static Residual read(Words& words) {
    Residual found;
    found.given = words.next() != 0;
    if (found.given) {
      found.tensor = words.tensor();
      found.scale = words.array<int32_t>();
      found.shift = words.array<int32_t>();
    }
    return found;
  }

  // Adds the terms of one position to its accumulators.
  void add(const Frame& frame, int64_t position, std::vector<int64_t>& acc) const {
    if (!given) return;
    const uint8_t* row = frame.read(tensor) + position * tensor.pitch * tensor.bytes;
    for (std::size_t c = 0; c < acc.size(); ++c) {
      int64_t value = 0;
      widen(row + static_cast<int64_t>(c) * tensor.bytes, tensor.bytes, 1, &value);
      acc[c] += wrap32(shift_left(value * scale[c], shift[c]));
    }
  }
};

}  // namespace bpu
