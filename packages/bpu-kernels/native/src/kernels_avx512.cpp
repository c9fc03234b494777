// Kernels for AVX-512 with VNNI: vpdpbusd takes unsigned by signed bytes, so that signed inputs are offset by 128, and
// vpdpwssd 16 bits by 16 bits. Neither saturates; both wrap, and the final sums fit.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "kernels.h"

namespace bpu {
namespace {

constexpr int8_t kNatural[kPanel] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// What interleaving the bytes of four vectors leaves in the four results.
constexpr int8_t kBlockOrder[4 * kPanel] = {
    0, 1, 2,  3,  16, 17, 18, 19, 32, 33, 34, 35, 48, 49, 50, 51, 4,  5,  6,  7,  20, 21, 22, 23, 36, 37, 38, 39, 52, 53, 54, 55,
    8, 9, 10, 11, 24, 25, 26, 27, 40, 41, 42, 43, 56, 57, 58, 59, 12, 13, 14, 15, 28, 29, 30, 31, 44, 45, 46, 47, 60, 61, 62, 63};

// Rows and panels of a tile: 16 accumulators hide the latency of the products.
constexpr int64_t kRows = 8;
constexpr int64_t kPanels = 2;

// Rows of a tile are unrolled early, so that their sums stay in registers.
#define BPU_UNROLL _Pragma("GCC unroll 8")

inline __m512i load(const void* from) { return _mm512_loadu_si512(from); }

inline __m256i load16(const int16_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

inline __m512i broadcast(const uint8_t* from) {
  int32_t value;
  __builtin_memcpy(&value, from, 4);
  return _mm512_set1_epi32(value);
}

inline void finish_row(const Finish& by, const Rows& to, int64_t row, int64_t c, __m512i acc) {
  const int64_t count = to.channels - c;
  const auto mask = static_cast<__mmask16>(count >= kPanel ? 0xFFFF : (1 << count) - 1);
  if (to.residual != nullptr) {  // (6)
    const __m128i bytes = _mm_maskz_loadu_epi8(mask, to.residual + row * to.residual_stride + c);
    const __m512i product = _mm512_madd_epi16(_mm512_cvtepi8_epi32(bytes), load(by.residual_scale + c));
    const __m512i left = _mm512_sllv_epi32(product, load(by.residual_left + c));
    acc = _mm512_add_epi32(acc, _mm512_srav_epi32(left, load(by.residual_right + c)));
  }
  const __m256i middle = _mm512_cvtsepi32_epi16(_mm512_srav_epi32(acc, load(by.accu + c)));
  const __m256i scale = load16(by.scale + c);
  __m256i y;
  if (by.is_short[c / kPanel]) {
    const __m256i upper = _mm256_add_epi16(_mm256_mulhi_epi16(middle, scale), load16(by.nudge + c));
    y = _mm256_mulhi_epi16(upper, load16(by.factor + c));
  } else {
    const __m512i product = _mm512_madd_epi16(_mm512_cvtepi16_epi32(middle), _mm512_cvtepi16_epi32(scale));
    // The upper half of a widened negative number meets the upper half of the scale, which is 0.
    const __m512i rounded = _mm512_add_epi32(product, load(by.half + c));
    y = _mm512_cvtsepi32_epi16(_mm512_srav_epi32(rounded, load(by.right + c)));
  }
  if (by.relu) y = _mm256_max_epi16(y, _mm256_setzero_si256());
  uint8_t* out = to.out + row * to.out_stride + c * to.out_bytes;
  if (to.out_bytes == 1) {
    _mm_mask_storeu_epi8(out, mask, _mm256_cvtsepi16_epi8(y));
  } else {
    _mm256_mask_storeu_epi16(out, mask, y);
  }
}

template <int64_t R, int64_t P, bool kWide>
void tile(const Product& product, int64_t panel, int64_t row) {
  const uint8_t* a = product.a + row * product.a_stride;
  const uint8_t* b = product.weights + panel * product.panel_bytes;
  const int64_t stride = product.a_stride, apart = product.panel_bytes;
  __m512i acc[R][P];
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
    BPU_UNROLL for (int64_t p = 0; p < P; ++p) acc[r][p] = load(product.finish.bias + (panel + p) * kPanel);
  }
  for (int64_t k = 0; k < product.depth; ++k, a += 4, b += 64) {
    __m512i weights[P];
    BPU_UNROLL for (int64_t p = 0; p < P; ++p) weights[p] = load(b + p * apart);
    BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
      const __m512i x = broadcast(a + r * stride);
      BPU_UNROLL for (int64_t p = 0; p < P; ++p) {
        acc[r][p] = kWide ? _mm512_dpwssd_epi32(acc[r][p], x, weights[p]) : _mm512_dpbusd_epi32(acc[r][p], x, weights[p]);
      }
    }
  }
  BPU_UNROLL for (int64_t r = 0; r < R; ++r) {
    BPU_UNROLL for (int64_t p = 0; p < P; ++p) {
      finish_row(product.finish, product.to, row + r, (panel + p) * kPanel, acc[r][p]);
    }
  }
}

template <int64_t P, bool kWide>
void multiply_panels(const Product& product, int64_t panel) {
  int64_t row = 0;
  for (; row + kRows <= product.rows; row += kRows) tile<kRows, P, kWide>(product, panel, row);
  if (row + 4 <= product.rows) {
    tile<4, P, kWide>(product, panel, row);
    row += 4;
  }
  for (; row < product.rows; ++row) tile<1, P, kWide>(product, panel, row);
}

template <bool kWide>
void multiply(const Product& product) {
  int64_t panel = 0;
  for (; panel + kPanels <= product.panels; panel += kPanels) multiply_panels<kPanels, kWide>(product, panel);
  for (; panel < product.panels; ++panel) multiply_panels<1, kWide>(product, panel);
}

void offset8(const uint8_t* from, int64_t count, uint8_t* to) {
  const __m512i sign = _mm512_set1_epi8(-128);
  for (int64_t i = 0; i < count; i += 64) {
    const int64_t left = count - i;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    _mm512_mask_storeu_epi8(to + i, mask, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from + i), sign));
  }
}

void copy8(const uint8_t* from, int64_t count, uint8_t* to) { __builtin_memcpy(to, from, static_cast<size_t>(count)); }

void copy16(const uint8_t* from, int64_t count, uint8_t* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(2 * count));
}

// Two taps a step: their 16-bit elements are interleaved per channel, so that vpdpwssd adds their products.
inline void depthwise_panel(const DepthwiseLine& at, int64_t position, int64_t c) {
  const int64_t count = at.to.channels - c;
  const auto mask = static_cast<__mmask16>(count >= kPanel ? 0xFFFF : (1 << count) - 1);
  const int16_t* weights = at.weights + c * at.pairs * 2;
  __m512i acc = load(at.finish.bias + c);
  for (int64_t pair = 0; pair < at.pairs; ++pair, weights += 2 * kPanel) {
    const __m128i first = _mm_maskz_loadu_epi8(mask, at.taps[2 * pair] + c);
    const __m128i second = _mm_maskz_loadu_epi8(mask, at.taps[2 * pair + 1] + c);
    const __m256i both = _mm256_set_m128i(_mm_unpackhi_epi8(first, second), _mm_unpacklo_epi8(first, second));
    acc = _mm512_dpwssd_epi32(acc, _mm512_cvtepi8_epi16(both), load(weights));
  }
  finish_row(at.finish, at.to, position, c, acc);
}

// Four panels of an input without negative values: the bytes of four taps are interleaved for vpdpbusd.
inline void depthwise_panels(const DepthwiseLine& at, int64_t position, int64_t c) {
  const int64_t groups = (at.pairs + 1) / 2;
  const int8_t* weights = at.positive_weights + c * groups * 4;
  __m512i acc[4] = {};  // in the order of kBlockOrder
  for (int64_t group = 0; group < groups; ++group, weights += 4 * 4 * kPanel) {
    const int8_t* const* taps = at.taps + 4 * group;
    const __m512i a = load(taps[0] + c), b = load(taps[1] + c), d = load(taps[2] + c), e = load(taps[3] + c);
    const __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
    const __m512i low2 = _mm512_unpacklo_epi8(d, e), high2 = _mm512_unpackhi_epi8(d, e);
    acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_unpacklo_epi16(low, low2), load(weights));
    acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_unpackhi_epi16(low, low2), load(weights + 4 * kPanel));
    acc[2] = _mm512_dpbusd_epi32(acc[2], _mm512_unpacklo_epi16(high, high2), load(weights + 8 * kPanel));
    acc[3] = _mm512_dpbusd_epi32(acc[3], _mm512_unpackhi_epi16(high, high2), load(weights + 12 * kPanel));
  }
  // Quarter q of sum i holds channels 16 q + 4 i on; transposing the quarters puts them in order.
  const __m512i even = _mm512_shuffle_i32x4(acc[0], acc[1], 0x88), odd = _mm512_shuffle_i32x4(acc[0], acc[1], 0xDD);
  const __m512i even2 = _mm512_shuffle_i32x4(acc[2], acc[3], 0x88), odd2 = _mm512_shuffle_i32x4(acc[2], acc[3], 0xDD);
  const __m512i sums[4] = {_mm512_shuffle_i32x4(even, even2, 0x88), _mm512_shuffle_i32x4(odd, odd2, 0x88),
                           _mm512_shuffle_i32x4(even, even2, 0xDD), _mm512_shuffle_i32x4(odd, odd2, 0xDD)};
  BPU_UNROLL for (int64_t panel = 0; panel < 4; ++panel) {
    const int64_t channel = c + panel * kPanel;
    finish_row(at.finish, at.to, position, channel, _mm512_add_epi32(sums[panel], load(at.finish.bias + channel)));
  }
}

void depthwise(const DepthwiseLine& given) {
  const DepthwiseLine at = given;  // a copy, which no store can change
  for (int64_t position = 0; position < at.positions; ++position) {
    int64_t c = 0;
    if (at.positive_weights != nullptr) {
      for (; c + 4 * kPanel <= at.to.channels; c += 4 * kPanel) depthwise_panels(at, position, c);
    }
    for (; c < at.to.channels; c += kPanel) depthwise_panel(at, position, c);
    for (int64_t tap = 0; tap < (at.pairs + 1) / 2 * 4; ++tap) at.taps[tap] += at.advances[tap];
  }
}

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels kernels = {
      {false, true, 4, 4, kNatural, multiply<false>, offset8},
      {false, false, 4, 4, kNatural, multiply<false>, copy8},
      {true, false, 2, 2, kNatural, multiply<true>, copy16},
      {kNatural, {4 * kPanel, 4, kBlockOrder}, depthwise},
  };
  return kernels;
}

}  // namespace bpu

#endif
