// Bits of a mask: rows of truth values, each row beginning a byte.
#pragma once

#include <cstdint>
#include <cstring>

#include "clones.h"

namespace bpu {

inline int64_t bit_bytes(int64_t length) { return (length + 7) / 8; }

// Packs the truths of `is_one`, called with 0 to before `count`, the first into the lowest bit; 32 of them at once are
// whole vectors.
template <typename Truth>
BPU_INLINE void pack_bits(int64_t count, uint8_t* bits, const Truth& is_one) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    uint32_t word = 0;
    for (int k = 0; k < 32; ++k) word |= static_cast<uint32_t>(is_one(i + k)) << k;
    for (int k = 0; k < 4; ++k) bits[i / 8 + k] = static_cast<uint8_t>(word >> 8 * k);
  }
  for (; i < count; ++i) {
    const auto bit = static_cast<uint8_t>(is_one(i) << i % 8);
    bits[i / 8] = i % 8 == 0 ? bit : static_cast<uint8_t>(bits[i / 8] | bit);
  }
}

// Packs so many ones.
BPU_INLINE void set_bits(int64_t count, uint8_t* bits) {
  std::memset(bits, 0xff, static_cast<std::size_t>(count / 8));
  if (count % 8 != 0) bits[count / 8] = static_cast<uint8_t>((1 << count % 8) - 1);
}

// Copies the elements whose bit is 1, and 0 in the place of the others, as `pack_bits` 32 at once; `to` may be `from`.
BPU_INLINE void keep_where(const uint8_t* bits, const float* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const uint8_t* here = bits + i / 8;
    const uint32_t word = here[0] | here[1] << 8 | here[2] << 16 | static_cast<uint32_t>(here[3]) << 24;
    for (int k = 0; k < 32; ++k) {
      uint32_t value;
      std::memcpy(&value, from + i + k, sizeof value);
      value &= 0u - (word >> k & 1u);
      std::memcpy(to + i + k, &value, sizeof value);
    }
  }
  for (; i < count; ++i) to[i] = (bits[i / 8] >> (i % 8) & 1) != 0 ? from[i] : 0.0f;
}

}  // namespace bpu
