// Fake quantization of weights by rows, and the gradient that passes where nothing was clipped.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "bits.h"
#include "clones.h"
#include "engine.h"
#include "extremes.h"
#include "follow_range.h"
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
  const float scale = row.scale, low = row.low, high = row.high;  // copies, which no write can change
  const float least = (low - 0.5f) * scale, most = (high + 0.5f) * scale;
  Counts found{0.0, 0};
  for (int64_t begin = 0; begin < row.length; begin += kBlock) {
    const int64_t length = std::min(kBlock, row.length - begin);
    const float* BPU_RESTRICT x = row.x + begin;
    float* BPU_RESTRICT steps = row.steps + begin;
    int8_t* BPU_RESTRICT stored = row.stored + begin;
    int32_t sum = 0, clipped = 0;
    for (int64_t i = 0; i < length; ++i) {
      float step = std::rint(x[i] / scale);
      step = step < low ? low : step;
      step = step > high ? high : step;
      steps[i] = step;
      sum += static_cast<int32_t>(std::fabs(step));
      clipped += static_cast<int32_t>((x[i] < least) | (x[i] > most));
    }
    for (int64_t i = 0; i < length; ++i) stored[i] = static_cast<int8_t>(static_cast<int32_t>(steps[i]));
    found.sum += sum;
    found.clipped += clipped;
    if (clipped == 0) {  // as in most blocks
      set_bits(length, row.mask + begin / 8);
    } else {
      pack_bits(length, row.mask + begin / 8,
                [&](int64_t i) BPU_INLINE_LAMBDA { return (x[i] >= least) & (x[i] <= most); });
    }
  }
  return found;
}

// Quantizes rows by their new scales, which `after` gets; returns whether all of their values were finite.
bool quantize_rows(const BpuRows& given, int64_t begin, int64_t end, Followed* after, std::atomic<int64_t>& clipped) {
  bool finite = true;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * given.length;
    const BpuObserved& o = given.observed;
    Followed now{0.0f, 0.0f, o.scale[row]};
    const Ends ends = ends_of(given.x + at, given.length, 1);
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

// Most blocks of weights have nothing that was clipped, and are not touched.
BPU_CLONES void mask_block(float* gradient, const uint8_t* mask, int64_t length) {
  bool all = length % 8 == 0;
  for (int64_t i = 0; all && i < length / 8; ++i) all = mask[i] == 0xff;
  if (!all) keep_where(mask, gradient, length, gradient);
}

BPU_CLONES void scaled_row(const int8_t* BPU_RESTRICT steps, int64_t length, float scale, float* BPU_RESTRICT values) {
  for (int64_t i = 0; i < length; ++i) values[i] = static_cast<float>(steps[i]) * scale;
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

int32_t bpu_row_values(const int8_t* stored, int64_t rows, int64_t length, const float* scale, float* values,
                       int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::parallel_for(rows, 1 + bpu::kGrain / length, threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        bpu::scaled_row(stored + row * length, length, scale[row], values + row * length);
      }
    });
  });
}

int32_t bpu_mask_rows(float* gradient, const uint8_t* mask, int64_t rows, int64_t length, int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::parallel_for(rows, 1 + bpu::kGrain / length, threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const uint8_t* bits = mask + row * bpu::bit_bytes(length);
        for (int64_t at = 0; at < length; at += bpu::kBlock) {
          bpu::mask_block(gradient + row * length + at, bits + at / 8, std::min(bpu::kBlock, length - at));
        }
      }
    });
  });
}
