// Kernels for AVX2. Eight-bit products of an input without negative values run on vpmaddubsw, which never saturates
// there (127 * 2 * 128 < 2^15); all others on vpmaddwd over 16 bits.
#if defined(__AVX2__)

#include <immintrin.h>

#include "kernels.h"

namespace bpu {
namespace {

// Accumulators hold channels 0-3 8-11 and 4-7 12-15, so that packing both gives 0 .. 15 in order.
constexpr int8_t kOrder[kPanel] = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};

// What interleaving the bytes of two vectors leaves in the first and in the second half of the pairs.
constexpr int8_t kBlockOrder[2 * kPanel] = {0, 1, 2,  3,  4,  5,  6,  7,  16, 17, 18, 19, 20, 21, 22, 23,
                                            8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};

// Rows of a tile: with two vectors a row, weights and accumulators fill the 16 registers.
constexpr int64_t kRows = 4;

// Rows of a tile are unrolled early, so that their sums stay in registers.
#define BPU_UNROLL _Pragma("GCC unroll 8")

struct Pair {
  __m256i low, high;
};

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

inline __m256i broadcast(const uint8_t* from) {
  int32_t value;
  __builtin_memcpy(&value, from, 4);
  return _mm256_set1_epi32(value);
}

// Up to 16 bytes, zeros behind them.
inline __m128i load_bytes(const int8_t* from, int64_t count) {
  if (count >= kPanel) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  alignas(16) int8_t padded[kPanel] = {};
  __builtin_memcpy(padded, from, static_cast<size_t>(count));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(padded));
}

// (6): scale, 15 bits, times int8 by vpmaddwd, whose upper products are with 0.
inline void add_residual(const Finish& by, const int8_t* residual, int64_t c, int64_t count, Pair& acc) {
  const __m128i bytes = _mm_shuffle_epi32(load_bytes(residual, count), 0xD8);
  __m256i terms[2] = {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
  BPU_UNROLL for (int64_t i = 0; i < 2; ++i) {
    const int64_t at = c + 8 * i;
    terms[i] = _mm256_madd_epi16(terms[i], load(by.residual_scale + at));
    terms[i] = _mm256_srav_epi32(_mm256_sllv_epi32(terms[i], load(by.residual_left + at)), load(by.residual_right + at));
  }
  acc.low = _mm256_add_epi32(acc.low, terms[0]);
  acc.high = _mm256_add_epi32(acc.high, terms[1]);
}

// (1) up to the last saturation; y has 16 channels in order.
template <int64_t R>
inline void requantize(const Finish& by, int64_t c, const Pair* acc, __m256i* y) {
  const __m256i accu_low = load(by.accu + c), accu_high = load(by.accu + c + 8), scale = load(by.scale + c);
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
    y[r] = _mm256_packs_epi32(_mm256_srav_epi32(acc[r].low, accu_low), _mm256_srav_epi32(acc[r].high, accu_high));
  }
  if (by.is_short[c / kPanel]) {
    const __m256i nudge = load(by.nudge + c), factor = load(by.factor + c);
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
      y[r] = _mm256_mulhi_epi16(_mm256_add_epi16(_mm256_mulhi_epi16(y[r], scale), nudge), factor);
    }
    return;
  }
  const __m256i half_low = load(by.half + c), half_high = load(by.half + c + 8);
  const __m256i right_low = load(by.right + c), right_high = load(by.right + c + 8);
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
    const __m256i lower = _mm256_mullo_epi16(y[r], scale), upper = _mm256_mulhi_epi16(y[r], scale);
    const __m256i first = _mm256_add_epi32(_mm256_unpacklo_epi16(lower, upper), half_low);
    const __m256i second = _mm256_add_epi32(_mm256_unpackhi_epi16(lower, upper), half_high);
    y[r] = _mm256_packs_epi32(_mm256_srav_epi32(first, right_low), _mm256_srav_epi32(second, right_high));
  }
}

inline void store_row(const Rows& to, int64_t row, int64_t c, int64_t count, __m256i y) {
  uint8_t* out = to.out + row * to.out_stride + c * to.out_bytes;
  alignas(32) uint8_t padded[2 * kPanel];
  uint8_t* at = count >= kPanel ? out : padded;
  if (to.out_bytes == 1) {
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), bytes);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), y);
  }
  if (count < kPanel) __builtin_memcpy(out, padded, static_cast<size_t>(count * to.out_bytes));
}

// Rows of whole panels as bytes, two at a time: packing works within halves, so the middle quarters change places.
template <int64_t R>
inline void store_bytes(const Rows& to, int64_t row, int64_t c, const __m256i* y) {
  uint8_t* out = to.out + row * to.out_stride + c;
  BPU_UNROLL for (int64_t r = 0; r < R; r += 2, out += 2 * to.out_stride) {
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(y[r], y[r + 1 < R ? r + 1 : r]), 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(bytes));
    if (r + 1 == R) break;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + to.out_stride), _mm256_extracti128_si256(bytes, 1));
  }
}

// (2): accumulators as 32-bit outputs.
inline void store_wide(const Finish& by, const Rows& to, int64_t row, int64_t c, const Pair& acc) {
  const int64_t count = to.channels - c;
  __m256i low = _mm256_srav_epi32(_mm256_add_epi32(acc.low, load(by.half + c)), load(by.right + c));
  __m256i high = _mm256_srav_epi32(_mm256_add_epi32(acc.high, load(by.half + c + 8)), load(by.right + c + 8));
  if (by.relu) {
    low = _mm256_max_epi32(low, _mm256_setzero_si256());
    high = _mm256_max_epi32(high, _mm256_setzero_si256());
  }
  uint8_t* out = to.out + row * to.out_stride + c * 4;
  alignas(32) uint8_t padded[4 * kPanel];
  uint8_t* at = count >= kPanel ? out : padded;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + 32), _mm256_permute2x128_si256(low, high, 0x31));
  if (count < kPanel) __builtin_memcpy(out, padded, static_cast<size_t>(4 * count));
}

// Turns accumulators of R rows and the panel at channel c into outputs.
template <int64_t R>
inline void finish_rows(const Finish& by, const Rows& to, int64_t row, int64_t c, Pair* acc) {
  const int64_t count = to.channels - c;
  if (to.residual != nullptr) {
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
      add_residual(by, to.residual + (row + r) * to.residual_stride + c, c, count, acc[r]);
    }
  }
  if (to.out_bytes == 4) {
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) store_wide(by, to, row + r, c, acc[r]);
    return;
  }
  __m256i y[R];
  requantize<R>(by, c, acc, y);
  if (by.relu) {
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) y[r] = _mm256_max_epi16(y[r], _mm256_setzero_si256());
  }
  if (to.out_bytes == 1 && count >= kPanel) return store_bytes<R>(to, row, c, y);
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) store_row(to, row + r, c, count, y[r]);
}

// One step is a pair of 16-bit elements: 2 products a lane.
template <int64_t R>
inline void accumulate16(const uint8_t* a, int64_t stride, const uint8_t* b, int64_t depth, Pair* acc) {
  for (int64_t k = 0; k < depth; ++k, a += 4, b += 64) {
    const __m256i low = load(b), high = load(b + 32);
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
      const __m256i x = broadcast(a + r * stride);
      acc[r].low = _mm256_add_epi32(acc[r].low, _mm256_madd_epi16(x, low));
      acc[r].high = _mm256_add_epi32(acc[r].high, _mm256_madd_epi16(x, high));
    }
  }
}

// One step is two quads of bytes: 8 products a lane. Where both quads' sums of pairs fit 16 bits together, one
// vpmaddwd widens them both.
template <int64_t R, bool kPaired>
inline void accumulate8(const uint8_t* a, int64_t stride, const uint8_t* b, const int32_t* visits, int64_t steps,
                        Pair* acc) {
  const __m256i ones = _mm256_set1_epi16(1);
  const auto widened = [&](__m256i x, __m256i y) {
    if (kPaired) return _mm256_madd_epi16(_mm256_add_epi16(x, y), ones);
    return _mm256_add_epi32(_mm256_madd_epi16(x, ones), _mm256_madd_epi16(y, ones));
  };
  for (int64_t k = 0; k < steps; ++k, b += 128) {
    const uint8_t* from = a + visits[k];
    const __m256i low0 = load(b), high0 = load(b + 32), low1 = load(b + 64), high1 = load(b + 96);
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
      const __m256i x0 = broadcast(from + r * stride), x1 = broadcast(from + r * stride + 4);
      const __m256i low = widened(_mm256_maddubs_epi16(x0, low0), _mm256_maddubs_epi16(x1, low1));
      acc[r].low = _mm256_add_epi32(acc[r].low, low);
      const __m256i high = widened(_mm256_maddubs_epi16(x0, high0), _mm256_maddubs_epi16(x1, high1));
      acc[r].high = _mm256_add_epi32(acc[r].high, high);
    }
  }
}

template <int64_t R, bool kWide>
void tile(const Product& product, int64_t panel, int64_t row) {
  const int64_t c = panel * kPanel;
  const uint8_t* a = product.a + row * product.a_stride;
  const uint8_t* b = product.weights + panel * product.panel_bytes;
  Pair acc[R];
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) acc[r] = {load(product.finish.bias + c), load(product.finish.bias + c + 8)};
  if (kWide) {
    accumulate16<R>(a, product.a_stride, b, product.depth, acc);
  } else {
    const int32_t* visits = product.visits + panel * product.depth;
    const int64_t paired = product.paired[panel];
    accumulate8<R, true>(a, product.a_stride, b, visits, paired, acc);
    accumulate8<R, false>(a, product.a_stride, b + paired * 128, visits + paired, product.depth - paired, acc);
  }
  finish_rows<R>(product.finish, product.to, row, c, acc);
}

template <bool kWide>
void multiply(const Product& given) {
  const Product product = given;  // a copy, which no store can change
  for (int64_t panel = 0; panel < product.panels; ++panel) {
    int64_t row = 0;
    for (; row + kRows <= product.rows; row += kRows) tile<kRows, kWide>(product, panel, row);
    for (; row + 2 <= product.rows; row += 2) tile<2, kWide>(product, panel, row);
    if (row < product.rows) tile<1, kWide>(product, panel, row);
  }
}

void widen8(const uint8_t* from, int64_t count, uint8_t* to) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * i), _mm256_cvtepi8_epi16(bytes));
  }
  if (i < count && count >= 16) {  // the last ones once more
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + count - 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * (count - 16)), _mm256_cvtepi8_epi16(bytes));
    return;
  }
  if (count - i >= 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), _mm_cvtepi8_epi16(bytes));
    i += 8;
  }
  for (; i < count; ++i) {
    const int16_t value = static_cast<int8_t>(from[i]);
    __builtin_memcpy(to + 2 * i, &value, 2);
  }
}

void copy8(const uint8_t* from, int64_t count, uint8_t* to) { __builtin_memcpy(to, from, static_cast<size_t>(count)); }

void copy16(const uint8_t* from, int64_t count, uint8_t* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(2 * count));
}

// Two taps a step: their 16-bit elements are interleaved per channel, so that vpmaddwd adds their products.
inline void depthwise_panel(const DepthwiseLine& at, int64_t position, int64_t c, int64_t count) {
  const int16_t* weights = at.weights + c * at.pairs * 2;
  Pair acc = {load(at.finish.bias + c), load(at.finish.bias + c + 8)};
  for (int64_t pair = 0; pair < at.pairs; ++pair, weights += 2 * kPanel) {
    const __m256i first = _mm256_cvtepi8_epi16(load_bytes(at.taps[2 * pair] + c, count));
    const __m256i second = _mm256_cvtepi8_epi16(load_bytes(at.taps[2 * pair + 1] + c, count));
    acc.low = _mm256_add_epi32(acc.low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), load(weights)));
    acc.high = _mm256_add_epi32(acc.high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), load(weights + kPanel)));
  }
  finish_rows<1>(at.finish, at.to, position, c, &acc);
}

// Two panels of an input without negative values: the bytes of two taps are interleaved, vpmaddubsw adds their
// products, and the sums of two such pairs are interleaved in turn for vpmaddwd to add. kPairs: their number where it is
// known, otherwise 0.
template <int64_t kPairs>
inline void depthwise_panels(const DepthwiseLine& at, int64_t position, int64_t c) {
  const int64_t pairs = kPairs ? kPairs : at.pairs;
  const int8_t* weights = at.positive_weights + c * pairs * 2;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[4] = {};  // channels 0-3 16-19, 4-7 20-23, 8-11 24-27, 12-15 28-31
  BPU_UNROLL for (int64_t pair = 0; pair < pairs; pair += 2) {
    __m256i sums[2][2] = {};
    BPU_UNROLL for (int64_t i = 0; i < 2; ++i) {
      if (pair + i == pairs) break;
      const __m256i x = load(at.taps[2 * (pair + i)] + c), y = load(at.taps[2 * (pair + i) + 1] + c);
      const int8_t* w = weights + (pair + i) * 4 * kPanel;
      sums[i][0] = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(x, y), load(w));
      sums[i][1] = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(x, y), load(w + 2 * kPanel));
    }
    BPU_UNROLL for (int64_t half = 0; half < 2; ++half) {
      const __m256i low = _mm256_unpacklo_epi16(sums[0][half], sums[1][half]);
      const __m256i high = _mm256_unpackhi_epi16(sums[0][half], sums[1][half]);
      acc[2 * half] = _mm256_add_epi32(acc[2 * half], _mm256_madd_epi16(low, ones));
      acc[2 * half + 1] = _mm256_add_epi32(acc[2 * half + 1], _mm256_madd_epi16(high, ones));
    }
  }
  const auto biased = [&](__m256i sum, int64_t channel) { return _mm256_add_epi32(sum, load(at.finish.bias + channel)); };
  Pair lower = {biased(_mm256_permute2x128_si256(acc[0], acc[2], 0x20), c),
                      biased(_mm256_permute2x128_si256(acc[1], acc[3], 0x20), c + 8)};
  Pair upper = {biased(_mm256_permute2x128_si256(acc[0], acc[2], 0x31), c + kPanel),
                      biased(_mm256_permute2x128_si256(acc[1], acc[3], 0x31), c + kPanel + 8)};
  finish_rows<1>(at.finish, at.to, position, c, &lower);
  finish_rows<1>(at.finish, at.to, position, c + kPanel, &upper);
}

void depthwise(const DepthwiseLine& given) {
  const DepthwiseLine at = given;  // a copy, which no store can change
  for (int64_t position = 0; position < at.positions; ++position) {
    int64_t c = 0;
    if (at.positive_weights != nullptr && at.pairs == 5) {  // 3 x 3
      for (; c + 2 * kPanel <= at.to.channels; c += 2 * kPanel) depthwise_panels<5>(at, position, c);
    } else if (at.positive_weights != nullptr) {
      for (; c + 2 * kPanel <= at.to.channels; c += 2 * kPanel) depthwise_panels<0>(at, position, c);
    }
    for (; c + kPanel <= at.to.channels; c += kPanel) depthwise_panel(at, position, c, kPanel);
    if (c < at.to.channels) depthwise_panel(at, position, c, at.to.channels - c);
    for (int64_t tap = 0; tap < (at.pairs + 1) / 2 * 4; ++tap) at.taps[tap] += at.advances[tap];
  }
}

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels kernels = {
      {true, false, 2, 2, kOrder, multiply<true>, widen8},
      {false, false, 8, 4, kOrder, multiply<false>, copy8},
      {true, false, 2, 2, kOrder, multiply<true>, copy16},
      {kOrder, {2 * kPanel, 2, kBlockOrder}, depthwise},
  };
  return kernels;
}

}  // namespace bpu

#endif
