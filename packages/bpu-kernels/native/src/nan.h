// Finds NaN by its bits: the passes are compiled for finite numbers, where comparisons count as ordered.
#pragma once

#include <cstdint>
#include <cstring>

#include "clones.h"

namespace bpu {

BPU_INLINE bool has_nan(const float* values, int64_t count) {
  uint32_t largest = 0;  // without sign; NaN lies beyond infinity
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest > 0x7f800000u;
}

}  // namespace bpu
