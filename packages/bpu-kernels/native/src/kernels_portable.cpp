// Kernels in plain C++, for processors that have no others, and to compare others with.
#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace bpu {
namespace {

constexpr int8_t kNatural[kPanel] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

int32_t clamp16(int32_t value) { return std::min(std::max(value, -32768), 32767); }

// (2): accumulators as 32-bit outputs.
void finish_wide(const Finish& by, const Rows& to, int64_t row, int64_t c, int32_t* acc) {
  const int64_t count = std::min(kPanel, to.channels - c);
  for (int64_t i = 0; i < count; ++i) {
    acc[i] = (acc[i] + by.half[c + i]) >> by.right[c + i];
    if (by.relu) acc[i] = std::max(acc[i], 0);
  }
  std::memcpy(to.out + row * to.out_stride + c * 4, acc, static_cast<std::size_t>(count * 4));
}

// Turns the accumulators of one row and panel into outputs; c is the panel's first channel.
void finish_row(const Finish& by, const Rows& to, int64_t row, int64_t c, int32_t* acc) {
  const int64_t count = std::min(kPanel, to.channels - c);
  if (to.residual != nullptr) {
    const int8_t* residual = to.residual + row * to.residual_stride + c;
    for (int64_t i = 0; i < count; ++i) {
      const auto term = static_cast<uint32_t>(residual[i] * by.residual_scale[c + i]);
      acc[i] += static_cast<int32_t>(term << by.residual_left[c + i]) >> by.residual_right[c + i];
    }
  }
  if (to.out_bytes == 4) return finish_wide(by, to, row, c, acc);
  const int32_t top = to.out_bytes == 1 ? 127 : 32767, bottom = by.relu ? 0 : -top - 1;
  for (int64_t i = 0; i < kPanel; ++i) {
    const int32_t product = clamp16(acc[i] >> by.accu[c + i]) * by.scale[c + i];
    acc[i] = std::min(std::max((product + by.half[c + i]) >> by.right[c + i], bottom), top);
  }
  uint8_t* out = to.out + row * to.out_stride + c * to.out_bytes;
  for (int64_t i = 0; i < count; ++i) {
    if (to.out_bytes == 1) {
      out[i] = static_cast<uint8_t>(acc[i]);
    } else {
      const auto value = static_cast<int16_t>(acc[i]);
      std::memcpy(out + 2 * i, &value, 2);
    }
  }
}

void multiply(const Product& product) {
  const auto* weights = reinterpret_cast<const int16_t*>(product.weights);
  for (int64_t panel = 0; panel < product.panels; ++panel) {
    const int16_t* b = weights + panel * product.panel_bytes / 2;
    for (int64_t row = 0; row < product.rows; ++row) {
      const auto* a = reinterpret_cast<const int16_t*>(product.a + row * product.a_stride);
      int32_t acc[kPanel];
      std::memcpy(acc, product.finish.bias + panel * kPanel, sizeof acc);
      for (int64_t k = 0; k < product.depth; ++k) {
        for (int64_t i = 0; i < kPanel; ++i) {
          acc[i] += a[2 * k] * b[(k * kPanel + i) * 2] + a[2 * k + 1] * b[(k * kPanel + i) * 2 + 1];
        }
      }
      finish_row(product.finish, product.to, row, panel * kPanel, acc);
    }
  }
}

void widen8(const uint8_t* from, int64_t count, uint8_t* to) {
  const auto* in = reinterpret_cast<const int8_t*>(from);
  auto* out = reinterpret_cast<int16_t*>(to);
  for (int64_t i = 0; i < count; ++i) out[i] = in[i];
}

void copy16(const uint8_t* from, int64_t count, uint8_t* to) {
  std::memcpy(to, from, static_cast<std::size_t>(2 * count));
}

void depthwise_panel(const DepthwiseLine& at, int64_t position, int64_t c) {
  const int64_t count = std::min(kPanel, at.to.channels - c);
  const int16_t* weights = at.weights + c * at.pairs * 2;
  int32_t acc[kPanel];
  std::memcpy(acc, at.finish.bias + c, sizeof acc);
  for (int64_t pair = 0; pair < at.pairs; ++pair, weights += 2 * kPanel) {
    const int8_t *first = at.taps[2 * pair] + c, *second = at.taps[2 * pair + 1] + c;
    for (int64_t i = 0; i < count; ++i) acc[i] += first[i] * weights[2 * i] + second[i] * weights[2 * i + 1];
  }
  finish_row(at.finish, at.to, position, c, acc);
}

void depthwise(const DepthwiseLine& at) {
  for (int64_t position = 0; position < at.positions; ++position) {
    for (int64_t c = 0; c < at.to.channels; c += kPanel) depthwise_panel(at, position, c);
    for (int64_t tap = 0; tap < (at.pairs + 1) / 2 * 4; ++tap) at.taps[tap] += at.advances[tap];
  }
}

}  // namespace

const Kernels& portable_kernels() {
  static const Kernels kernels = {
      {true, false, 2, 2, kNatural, multiply, widen8},
      {true, false, 2, 2, kNatural, multiply, widen8},
      {true, false, 2, 2, kNatural, multiply, copy16},
      {kNatural, {0, 1, nullptr}, depthwise},
  };
  return kernels;
}

}  // namespace bpu
