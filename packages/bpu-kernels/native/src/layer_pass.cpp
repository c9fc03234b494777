// A layer under training: from its accumulators to the board's integers, their real values and the gradient's mask.
#include <algorithm>
#include <limits>
#include <mutex>

#include "bits.h"
#include "clones.h"
#include "engine.h"
#include "nan.h"
#include "threads.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 1 << 15;  // elements that are worth a thread's while

// Consecutive elements of one row: of one channel, or of all channels of a position.
struct Run {
  int64_t channel;
  int64_t offset;
  int64_t length;
};

template <typename T>
BPU_INLINE T clamp(T value, T low, T high) {
  return value < low ? low : (value > high ? high : value);
}

// Parameters vary along a run of all channels, and are one number along a run of one channel.
template <bool kVaries>
BPU_INLINE int64_t at(int64_t i) {
  return kVaries ? i : 0;
}

template <bool kVaries, bool kAdds>
BPU_INLINE void real_values(const BpuLayer& l, const Run& run, const float* accumulators,
                            float* BPU_RESTRICT real) {
  const float* BPU_RESTRICT acc = accumulators + run.offset;
  const float* BPU_RESTRICT unit = l.unit + run.channel;
  const float* BPU_RESTRICT bias = l.bias + run.channel;
  const float* BPU_RESTRICT added = kAdds ? l.residual_value + run.offset : nullptr;
  for (int64_t i = 0; i < run.length; ++i) {
    float value = acc[i] * unit[at<kVaries>(i)];
    value = value + bias[at<kVaries>(i)];
    if (kAdds) value = value + added[i];
    real[i] = value;
  }
}

template <bool kVaries, bool kAdds, bool kReal>
BPU_INLINE void integers(const BpuLayer& l, const Run& run, const float* accumulators, int8_t* BPU_RESTRICT steps,
                         float* BPU_RESTRICT values) {
  const float* BPU_RESTRICT acc = accumulators + run.offset;
  const int8_t* BPU_RESTRICT residual = kAdds ? l.residual + run.offset : nullptr;
  const int64_t c = run.channel;
  const int32_t* BPU_RESTRICT before = l.before + c;
  const int32_t* BPU_RESTRICT accu = l.accu + c;
  const int32_t* BPU_RESTRICT scale = l.scale + c;
  const int32_t* BPU_RESTRICT rounding = l.rounding + c;
  const int32_t* BPU_RESTRICT right = l.right + c;
  const int32_t* BPU_RESTRICT residual_scale = kAdds ? l.residual_scale + c : nullptr;
  const int32_t* BPU_RESTRICT residual_left = kAdds ? l.residual_left + c : nullptr;
  const int32_t* BPU_RESTRICT residual_right = kAdds ? l.residual_right + c : nullptr;
  const int32_t low = l.low, high = l.high;
  const float value_scale = l.value_scale;
  for (int64_t i = 0; i < run.length; ++i) {
    const int64_t k = at<kVaries>(i);
    int32_t sum = static_cast<int32_t>(acc[i]) + before[k];
    if (kAdds) {
      const auto product = static_cast<uint32_t>(residual[i] * residual_scale[k]);
      sum += static_cast<int32_t>(product << residual_left[k]) >> residual_right[k];
    }
    const int32_t middle = clamp(sum >> accu[k], -32768, 32767);
    const int32_t step = clamp((middle * scale[k] + rounding[k]) >> right[k], low, high);
    steps[i] = static_cast<int8_t>(step);
    if (kReal) values[i] = static_cast<float>(step) * value_scale;
  }
}

BPU_INLINE void activate(int32_t activation, int64_t length, float* real) {
  if (activation == 1) {
    for (int64_t i = 0; i < length; ++i) real[i] = real[i] < 0.0f ? 0.0f : real[i];
  } else if (activation == 2) {
    for (int64_t i = 0; i < length; ++i) real[i] = clamp(real[i], 0.0f, 6.0f);
  }
}

// Where the gradients of activation and saturation both pass.
BPU_INLINE void passes(const BpuLayer& l, int64_t length, const float* BPU_RESTRICT real,
                       uint8_t* BPU_RESTRICT truths) {
  const float low = l.activation == 0 ? l.pass_low : std::max(l.pass_low, 0.0f);
  const float high = l.activation == 2 ? std::min(l.pass_high, 6.0f) : l.pass_high;
  if (l.activation == 1) {  // at 0 the gradient of ReLU is 0
    for (int64_t i = 0; i < length; ++i) truths[i] = static_cast<uint8_t>((real[i] > low) & (real[i] <= high));
  } else {
    for (int64_t i = 0; i < length; ++i) truths[i] = static_cast<uint8_t>((real[i] >= low) & (real[i] <= high));
  }
}

template <bool kVaries, bool kAdds>
BPU_INLINE void output_run(const BpuLayer& l, const Run& run, const float* acc, int8_t* steps, float* values,
                           uint8_t* bits) {
  if (values == nullptr) {
    integers<kVaries, kAdds, false>(l, run, acc, steps + run.offset, nullptr);
  } else {
    integers<kVaries, kAdds, true>(l, run, acc, steps + run.offset, values + run.offset);
  }
  if (bits == nullptr) return;
  float real[kBlock];
  uint8_t truths[kBlock];
  real_values<kVaries, kAdds>(l, run, acc, real);
  passes(l, run.length, real, truths);
  pack_bits(truths, run.length, bits);
}

struct Extremes {
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();
  bool unordered = false;
};

template <bool kVaries, bool kAdds>
BPU_INLINE void extremes_run(const BpuLayer& l, const Run& run, const float* acc, Extremes& found) {
  float real[kBlock];
  real_values<kVaries, kAdds>(l, run, acc, real);
  found.unordered |= has_nan(real, run.length);
  activate(l.activation, run.length, real);
  float low = found.low, high = found.high;
  for (int64_t i = 0; i < run.length; ++i) {
    low = real[i] < low ? real[i] : low;
    high = real[i] > high ? real[i] : high;
  }
  found.low = low;
  found.high = high;
}

// Calls `work` with every block of the rows from `begin` to before `end`, and where its bits lie.
template <typename Work>
BPU_INLINE void for_blocks(const BpuLayer& l, int64_t begin, int64_t end, const Work& work) {
  const bool varies = l.inner == 1;
  const int64_t length = varies ? l.channels : l.inner;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t at = 0; at < length; at += kBlock) {
      const Run run{varies ? at : row % l.channels, row * length + at, std::min(kBlock, length - at)};
      work(run, row * bit_bytes(length) + at / 8);
    }
  }
}

BPU_CLONES void output_rows(const BpuLayer& l, const float* acc, int8_t* steps, float* values, uint8_t* mask,
                            int64_t begin, int64_t end) {
  const bool varies = l.inner == 1, adds = l.residual != nullptr;
  for_blocks(l, begin, end, [&](const Run& run, int64_t bits) BPU_INLINE_LAMBDA {
    uint8_t* to = mask == nullptr ? nullptr : mask + bits;
    if (varies) {
      adds ? output_run<true, true>(l, run, acc, steps, values, to)
           : output_run<true, false>(l, run, acc, steps, values, to);
    } else {
      adds ? output_run<false, true>(l, run, acc, steps, values, to)
           : output_run<false, false>(l, run, acc, steps, values, to);
    }
  });
}

BPU_CLONES void extremes_rows(const BpuLayer& l, const float* acc, int64_t begin, int64_t end, Extremes& found) {
  const bool varies = l.inner == 1, adds = l.residual_value != nullptr;
  for_blocks(l, begin, end, [&](const Run& run, int64_t) BPU_INLINE_LAMBDA {
    if (varies) {
      adds ? extremes_run<true, true>(l, run, acc, found) : extremes_run<true, false>(l, run, acc, found);
    } else {
      adds ? extremes_run<false, true>(l, run, acc, found) : extremes_run<false, false>(l, run, acc, found);
    }
  });
}

int64_t rows_of(const BpuLayer& l) { return l.inner == 1 ? l.outer : l.outer * l.channels; }

int64_t grain_of(const BpuLayer& l) { return 1 + kGrain / (l.inner == 1 ? l.channels : l.inner); }

}  // namespace
}  // namespace bpu

int32_t bpu_layer_range(const BpuLayer* layer, const float* accumulators, float* found, int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::Extremes all;
    std::mutex mutex;
    bpu::parallel_for(bpu::rows_of(*layer), bpu::grain_of(*layer), threads, [&](int64_t begin, int64_t end) {
      bpu::Extremes part;
      bpu::extremes_rows(*layer, accumulators, begin, end, part);
      const std::lock_guard<std::mutex> lock(mutex);
      all.low = std::min(all.low, part.low);
      all.high = std::max(all.high, part.high);
      all.unordered |= part.unordered;
    });
    const float nan = std::numeric_limits<float>::quiet_NaN();
    found[0] = all.unordered ? nan : all.low;
    found[1] = all.unordered ? nan : all.high;
  });
}

int32_t bpu_layer_output(const BpuLayer* layer, const float* accumulators, int8_t* steps, float* values, uint8_t* mask,
                         int32_t threads) {
  return bpu::without_throwing([&] {
    bpu::parallel_for(bpu::rows_of(*layer), bpu::grain_of(*layer), threads, [&](int64_t begin, int64_t end) {
      bpu::output_rows(*layer, accumulators, steps, values, mask, begin, end);
    });
  });
}
