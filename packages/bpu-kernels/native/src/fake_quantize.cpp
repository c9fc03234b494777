// Fake quantization of weights by rows, and the gradient that passes where nothing was clipped.
#include <algorithm>
#include <cmath>
#include <limits>

#include "bits.h"
#include "clones.h"
#include "engine.h"
#include "nan.h"
#include "threads.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 1 << 14;

struct Row {
  const float* x;
  int64_t length;
  float scale, low, high;
  float *steps, *values;
  uint8_t* mask;
};

struct Counts {
  double sum;
  int64_t clipped;
};

BPU_CLONES Counts quantize_row(const Row& row) {
  const float scale = row.scale, least = (row.low - 0.5f) * scale, most = (row.high + 0.5f) * scale;
  uint8_t truths[kBlock];
  Counts found{0.0, 0};
  for (int64_t begin = 0; begin < row.length; begin += kBlock) {
    const int64_t length = std::min(kBlock, row.length - begin);
    const float* BPU_RESTRICT x = row.x + begin;
    float* BPU_RESTRICT steps = row.steps + begin;
    float* BPU_RESTRICT values = row.values + begin;
    int32_t sum = 0, passing = 0;
    for (int64_t i = 0; i < length; ++i) {
      float step = std::rint(x[i] / scale);
      step = step < row.low ? row.low : step;
      step = step > row.high ? row.high : step;
      steps[i] = step;
      values[i] = step * scale;
      truths[i] = static_cast<uint8_t>((x[i] >= least) & (x[i] <= most));
      sum += static_cast<int32_t>(std::fabs(step));
      passing += truths[i];
    }
    found.sum += has_nan(x, length) ? std::numeric_limits<double>::quiet_NaN() : sum;
    found.clipped += length - passing;
    pack_bits(truths, length, row.mask + begin / 8);
  }
  return found;
}

// `out` may be the gradient itself.
BPU_CLONES void masked_row(const float* gradient, const uint8_t* mask, int64_t length, float* out) {
  uint8_t truths[kBlock];
  for (int64_t begin = 0; begin < length; begin += kBlock) {
    const int64_t count = std::min(kBlock, length - begin);
    unpack_bits(mask + begin / 8, count, truths);
    for (int64_t i = 0; i < count; ++i) out[begin + i] = truths[i] != 0 ? gradient[begin + i] : 0.0f;
  }
}

}  // namespace
}  // namespace bpu

int32_t bpu_quantize_rows(const float* x, int64_t rows, int64_t length, const float* scale, float low, float high,
                          float* steps, float* values, double* sums, uint8_t* mask, int64_t* clipped,
                          int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::parallel_for(rows, 1 + bpu::kGrain / length, threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * length;
        const bpu::Counts found = bpu::quantize_row({x + at, length, scale[row], low, high, steps + at, values + at,
                                                     mask + row * bpu::bit_bytes(length)});
        sums[row] = found.sum;
        clipped[row] = found.clipped;
      }
    });
  });
}

int32_t bpu_masked_gradient(const float* gradient, const uint8_t* mask, int64_t rows, int64_t length, float* out,
                            int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::parallel_for(rows, 1 + bpu::kGrain / length, threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        bpu::masked_row(gradient + row * length, mask + row * bpu::bit_bytes(length), length, out + row * length);
      }
    });
  });
}
