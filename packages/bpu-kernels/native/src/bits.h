// Bits of a mask: rows of truth values, each row beginning a byte.
#pragma once

#include <cstdint>
#include <cstring>

#include "clones.h"

namespace bpu {

inline int64_t bit_bytes(int64_t length) { return (length + 7) / 8; }

// Packs bytes of 0 and 1, eight to a byte, the first into the lowest bit.
BPU_INLINE void pack_bits(const uint8_t* truths, int64_t count, uint8_t* bits) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, truths + i, 8);
    bits[i / 8] = static_cast<uint8_t>((eight * 0x0102040810204080u) >> 56);
  }
  if (i == count) return;
  uint8_t last = 0;
  for (int64_t k = i; k < count; ++k) last = static_cast<uint8_t>(last | truths[k] << (k - i));
  bits[i / 8] = last;
}

// Packs so many ones.
BPU_INLINE void set_bits(int64_t count, uint8_t* bits) {
  std::memset(bits, 0xff, static_cast<std::size_t>(count / 8));
  if (count % 8 != 0) bits[count / 8] = static_cast<uint8_t>((1 << count % 8) - 1);
}

// Unpacks bits into bytes that are 0 or not.
BPU_INLINE void unpack_bits(const uint8_t* bits, int64_t count, uint8_t* truths) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const uint64_t eight = bits[i / 8] * 0x0101010101010101u & 0x8040201008040201u;
    std::memcpy(truths + i, &eight, 8);
  }
  for (; i < count; ++i) truths[i] = static_cast<uint8_t>(bits[i / 8] >> (i % 8) & 1);
}

}  // namespace bpu
