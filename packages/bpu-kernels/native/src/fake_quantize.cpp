// Fake quantization of weights by rows, and the gradient that passes where nothing was clipped.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "bits.h"
#include "clones.h"
#include "engine.h"
#include "follow_range.h"
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
  float* steps;
  int8_t* stored;
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
    int8_t* BPU_RESTRICT stored = row.stored + begin;
    int32_t sum = 0, passing = 0;
    for (int64_t i = 0; i < length; ++i) {
      float step = std::rint(x[i] / scale);
      step = step < row.low ? row.low : step;
      step = step > row.high ? row.high : step;
      steps[i] = step;
      sum += static_cast<int32_t>(std::fabs(step));
    }
    for (int64_t i = 0; i < length; ++i) stored[i] = static_cast<int8_t>(static_cast<int32_t>(steps[i]));
    for (int64_t i = 0; i < length; ++i) {
      truths[i] = static_cast<uint8_t>((x[i] >= least) & (x[i] <= most));
      passing += truths[i];
    }
    found.sum += sum;
    found.clipped += length - passing;
    pack_bits(truths, length, row.mask + begin / 8);
  }
  return found;
}

struct Ends {
  float low, high;
};

// Smallest and largest value of a row; the highest is NaN where there is one.
BPU_CLONES Ends ends_of(const float* x, int64_t length) {
  Ends found{x[0], x[0]};
  for (int64_t i = 0; i < length; ++i) {
    found.low = x[i] < found.low ? x[i] : found.low;
    found.high = x[i] > found.high ? x[i] : found.high;
  }
  if (has_nan(x, length)) found.high = std::numeric_limits<float>::quiet_NaN();
  return found;
}

// Quantizes rows by their new scales, which `after` gets; returns whether all of their values were finite.
bool quantize_rows(const BpuRows& given, int64_t begin, int64_t end, Followed* after, std::atomic<int64_t>& clipped) {
  bool finite = true;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * given.length;
    const BpuObserved& o = given.observed;
    Followed now{0.0f, 0.0f, o.scale[row]};
    const Ends ends = ends_of(given.x + at, given.length);
    finite = finite && is_finite(ends.low) && is_finite(ends.high);
    if (!finite) continue;
    if (given.observes != 0) {
      now = follow_range({o.min[row], o.max[row], o.scale[row]}, ends.low, ends.high, o.constant, o.steps);
    }
    after[row] = now;
    const Counts found = quantize_row({given.x + at, given.length, now.scale, static_cast<float>(given.quant_min),
                                       static_cast<float>(given.quant_max), given.steps + at, given.stored + at,
                                       given.mask + row * bit_bytes(given.length)});
    given.sums[row] = found.sum;
    clipped += found.clipped;
  }
  return finite;
}

// `out` may be the gradient itself.
BPU_CLONES void masked_block(const float* gradient, const uint8_t* mask, int64_t length, float* out) {
  uint8_t truths[kBlock];
  unpack_bits(mask, length, truths);
  for (int64_t i = 0; i < length; ++i) out[i] = truths[i] != 0 ? gradient[i] : 0.0f;
}

}  // namespace
}  // namespace bpu

int32_t bpu_train_rows(BpuRows* rows, int32_t threads) {
  int32_t status = 0;
  const int32_t failed = bpu::without_throwing([&] {
    std::vector<bpu::Followed> after(static_cast<std::size_t>(rows->rows));
    std::atomic<int64_t> clipped{0};
    std::atomic<bool> finite{true};
    bpu::parallel_for(rows->rows, 1 + bpu::kGrain / rows->length, threads, [&](int64_t begin, int64_t end) {
      if (!bpu::quantize_rows(*rows, begin, end, after.data(), clipped)) finite = false;
    });
    rows->clipped = clipped;
    if (!finite) {
      status = 2;
      return;
    }
    if (rows->observes == 0) return;
    for (std::size_t row = 0; row < after.size(); ++row) {
      rows->observed.min[row] = after[row].min;
      rows->observed.max[row] = after[row].max;
      rows->observed.scale[row] = after[row].scale;
    }
  });
  return failed != 0 ? failed : status;
}

int32_t bpu_masked_gradient(const float* gradient, const uint8_t* mask, int64_t rows, int64_t length, float* out,
                            int32_t threads) {
  return bpu::without_throwing([&] {
    const int64_t blocks = (length + bpu::kBlock - 1) / bpu::kBlock;
    const int64_t grain = 1 + bpu::kGrain / std::min(length, bpu::kBlock);
    bpu::parallel_for(rows * blocks, grain, threads, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const int64_t row = index / blocks, first = index % blocks * bpu::kBlock;
        const int64_t at = row * length + first;
        bpu::masked_block(gradient + at, mask + row * bpu::bit_bytes(length) + first / 8,
                          std::min(bpu::kBlock, length - first), out + at);
      }
    });
  });
}
