// The rounding rules of docs/numerics.md on 64-bit integers; the equations are cited by number.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bpu {

inline int64_t saturate(int64_t value, int64_t bits) {
  const int64_t top = (int64_t{1} << (bits - 1)) - 1;
  return std::min(std::max(value, -top - 1), top);
}

// 2^(shift - 1), and 0 for shift 0.
inline int64_t half(int64_t shift) { return shift > 0 ? int64_t{1} << (shift - 1) : 0; }

// Keeps the low 32 bits as a signed number.
inline int64_t wrap32(int64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }

// Left shift, or floor shift right where `shift` is negative; like numpy, bits beyond 64 are lost.
inline int64_t shift_left(int64_t value, int64_t shift) {
  if (shift < 0) return value >> std::min<int64_t>(-shift, 63);
  return static_cast<int64_t>(static_cast<uint64_t>(value) << std::min<int64_t>(shift, 63));
}

}  // namespace bpu
