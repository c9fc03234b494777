// A layer under training: from its accumulators to the board's integers, their real values and the gradient's mask.
//
// Memory is passed in blocks of consecutive elements. A block is first computed into arrays that stay in the cache, then
// written. Where channels follow one another, every parameter is repeated so that a block reads it from any channel on;
// where a channel's elements do, a block consists of runs of one channel each. A run is computed in whole vectors: what
// is too much at its end is overwritten by the next one.
#include "layer_pass.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "bits.h"
#include "clones.h"
#include "nan.h"
#include "threads.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kVector = 16;     // so many elements more than a run has may be read and computed
constexpr int64_t kGrain = 1 << 6;  // blocks that are worth a thread's while

template <typename T>
BPU_INLINE T clamp(T value, T low, T high) {
  return value < low ? low : (value > high ? high : value);
}

// The parameters of a layer, each array long enough for a block that begins at any of its channels.
struct Parameters {
  std::vector<float> unit, bias;
  std::vector<int32_t> before, accu, scale, rounding, right;
  std::vector<int32_t> residual_scale, residual_left, residual_right;

  explicit Parameters(const BpuLayer& l)
      : unit(repeated(l, l.unit)),
        bias(repeated(l, l.bias)),
        before(repeated(l, l.before)),
        accu(repeated(l, l.accu)),
        scale(repeated(l, l.scale)),
        rounding(repeated(l, l.rounding)),
        right(repeated(l, l.right)),
        residual_scale(repeated(l, l.residual_scale)),
        residual_left(repeated(l, l.residual_left)),
        residual_right(repeated(l, l.residual_right)) {}

  template <typename T>
  static std::vector<T> repeated(const BpuLayer& l, const T* given) {
    if (given == nullptr) return {};
    if (l.inner > 1) return {given, given + l.channels};
    std::vector<T> found(static_cast<std::size_t>(l.channels + kBlock + kVector));
    for (auto to = found.begin(); to != found.end();) {
      to = std::copy_n(given, std::min<int64_t>(l.channels, found.end() - to), to);
    }
    return found;
  }
};

// One run of a block: where it lies in the block, and its first channel.
struct Run {
  int64_t begin, length, channel;
};

// Where the elements of a block are read.
struct Block {
  const float* accumulators;
  const int8_t* residual;
  const float* residual_value;
};

template <bool kVaries>
BPU_INLINE int64_t at(int64_t i) {
  return kVaries ? i : 0;
}

template <bool kVaries, bool kAdds>
BPU_INLINE void real_values(const Parameters& p, const Block& block, const Run& run, float* BPU_RESTRICT to) {
  const float* BPU_RESTRICT acc = block.accumulators + run.begin;
  const float* BPU_RESTRICT unit = p.unit.data() + run.channel;
  const float* BPU_RESTRICT bias = p.bias.data() + run.channel;
  const float* BPU_RESTRICT added = kAdds ? block.residual_value + run.begin : nullptr;
  float* BPU_RESTRICT real = to + run.begin;
  const int64_t vectors = (run.length + kVector - 1) / kVector;
  for (int64_t i = 0; i < vectors * kVector; ++i) {
    float value = acc[i] * unit[at<kVaries>(i)];
    value = value + bias[at<kVaries>(i)];
    if (kAdds) value = value + added[i];
    real[i] = value;
  }
}

template <bool kVaries, bool kAdds>
BPU_INLINE void integers(const Parameters& p, const Block& block, const Run& run, int32_t low, int32_t high,
                         int32_t* BPU_RESTRICT to) {
  const float* BPU_RESTRICT acc = block.accumulators + run.begin;
  const int8_t* BPU_RESTRICT residual = kAdds ? block.residual + run.begin : nullptr;
  const int64_t c = run.channel;
  const int32_t* BPU_RESTRICT before = p.before.data() + c;
  const int32_t* BPU_RESTRICT accu = p.accu.data() + c;
  const int32_t* BPU_RESTRICT scale = p.scale.data() + c;
  const int32_t* BPU_RESTRICT rounding = p.rounding.data() + c;
  const int32_t* BPU_RESTRICT right = p.right.data() + c;
  const int32_t* BPU_RESTRICT residual_scale = kAdds ? p.residual_scale.data() + c : nullptr;
  const int32_t* BPU_RESTRICT residual_left = kAdds ? p.residual_left.data() + c : nullptr;
  const int32_t* BPU_RESTRICT residual_right = kAdds ? p.residual_right.data() + c : nullptr;
  int32_t* BPU_RESTRICT steps = to + run.begin;
  const int64_t vectors = (run.length + kVector - 1) / kVector;
  for (int64_t i = 0; i < vectors * kVector; ++i) {
    const int64_t k = at<kVaries>(i);
    // What lies beyond a run belongs to another channel, whose sums may wrap here; it is overwritten.
    auto sum = static_cast<uint32_t>(static_cast<int32_t>(acc[i])) + static_cast<uint32_t>(before[k]);
    if (kAdds) {
      const auto product = static_cast<uint32_t>(residual[i] * residual_scale[k]);
      sum += static_cast<uint32_t>(static_cast<int32_t>(product << residual_left[k]) >> residual_right[k]);
    }
    const int32_t middle = clamp(static_cast<int32_t>(sum) >> accu[k], -32768, 32767);
    steps[i] = clamp((middle * scale[k] + rounding[k]) >> right[k], low, high);
  }
}

// Calls `work` with each run of `count` elements from `offset` on.
template <typename Work>
BPU_INLINE void for_runs(const BpuLayer& l, int64_t offset, int64_t count, const Work& work) {
  if (l.inner == 1) {
    work(Run{0, count, offset % l.channels});
    return;
  }
  int64_t row = offset / l.inner, within = offset % l.inner;
  for (int64_t begin = 0; begin < count; ++row, within = 0) {
    const int64_t length = std::min(l.inner - within, count - begin);
    work(Run{begin, length, row % l.channels});
    begin += length;
  }
}

// Packs where the gradients of activation and saturation both pass.
BPU_INLINE void pack_passes(const BpuLayer& l, int64_t length, const float* BPU_RESTRICT real, uint8_t* bits) {
  const float low = l.activation == 0 ? l.pass_low : std::max(l.pass_low, 0.0f);
  const float high = l.activation == 2 ? std::min(l.pass_high, 6.0f) : l.pass_high;
  if (l.activation == 1) {  // at 0 the gradient of ReLU is 0
    pack_bits(length, bits, [&](int64_t i) BPU_INLINE_LAMBDA { return (real[i] > low) & (real[i] <= high); });
  } else {
    pack_bits(length, bits, [&](int64_t i) BPU_INLINE_LAMBDA { return (real[i] >= low) & (real[i] <= high); });
  }
}

// Where a block is read whose last vector would reach beyond the last element, or to where another thread writes.
struct Padded {
  float accumulators[kBlock + kVector];
  int8_t residual[kBlock + kVector];
  float residual_value[kBlock + kVector];
};

template <typename T>
BPU_INLINE const T* copied(const T* from, int64_t offset, int64_t count, T* to) {
  if (from == nullptr) return nullptr;
  std::memcpy(to, from + offset, static_cast<std::size_t>(count) * sizeof(T));
  std::memset(to + count, 0, static_cast<std::size_t>(kBlock + kVector - count) * sizeof(T));
  return to;
}

template <typename T>
BPU_INLINE const T* moved(const T* from, int64_t offset) {
  return from == nullptr ? nullptr : from + offset;
}

BPU_INLINE Block block_at(const BpuLayer& l, const float* acc, int64_t offset, int64_t count, bool at_end, Padded& pad) {
  if (!at_end) return {acc + offset, moved(l.residual, offset), moved(l.residual_value, offset)};
  return {copied(acc, offset, count, pad.accumulators), copied(l.residual, offset, count, pad.residual),
          copied(l.residual_value, offset, count, pad.residual_value)};
}

struct Outputs {
  int8_t* steps;
  float* values;
  uint8_t* mask;
};

template <bool kVaries, bool kAdds>
BPU_INLINE void output_block(const BpuLayer& l, const Parameters& p, const Block& block, int64_t offset, int64_t count,
                             const Outputs& to) {
  if (to.mask != nullptr) {
    float real[kBlock + kVector];
    for_runs(l, offset, count,
             [&](const Run& run) BPU_INLINE_LAMBDA { real_values<kVaries, kAdds>(p, block, run, real); });
    pack_passes(l, count, real, to.mask + offset / 8);
  }
  int32_t computed[kBlock + kVector];
  for_runs(l, offset, count, [&](const Run& run) BPU_INLINE_LAMBDA {
    integers<kVaries, kAdds>(p, block, run, l.low, l.high, computed);
  });
  int8_t* BPU_RESTRICT steps = to.steps + offset;
  for (int64_t i = 0; i < count; ++i) steps[i] = static_cast<int8_t>(computed[i]);
  float* BPU_RESTRICT values = to.values + offset;  // may be where the accumulators were, which are not needed again
  const float scale = l.value_scale;
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(computed[i]) * scale;
}

struct Extremes {
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();
  bool unordered = false;
};

template <bool kVaries, bool kAdds>
BPU_INLINE void extremes_block(const BpuLayer& l, const Parameters& p, const Block& block, int64_t offset,
                               int64_t count, Extremes& found) {
  float real[kBlock + kVector];
  for_runs(l, offset, count,
           [&](const Run& run) BPU_INLINE_LAMBDA { real_values<kVaries, kAdds>(p, block, run, real); });
  found.unordered |= has_nan(real, count);
  float low = found.low, high = found.high;
  for (int64_t i = 0; i < count; ++i) {
    low = real[i] < low ? real[i] : low;
    high = real[i] > high ? real[i] : high;
  }
  found.low = low;
  found.high = high;
}

int64_t elements(const BpuLayer& l) { return l.outer * l.channels * l.inner; }

int64_t blocks(const BpuLayer& l) { return (elements(l) + kBlock - 1) / kBlock; }

// Calls `work` with block, offset and number of elements, for blocks from `begin` to before `end`.
template <typename Work>
BPU_INLINE void for_blocks(const BpuLayer& l, const float* acc, int64_t begin, int64_t end, const Work& work) {
  Padded pad;
  const int64_t all = elements(l);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t offset = index * kBlock, count = std::min(kBlock, all - offset);
    const bool at_end = index + 1 == end || offset + count + kVector > all;
    work(block_at(l, acc, offset, count, at_end, pad), offset, count);
  }
}

BPU_CLONES void output_blocks(const BpuLayer& l, const Parameters& p, const float* acc, const Outputs& to,
                              int64_t begin, int64_t end) {
  const bool varies = l.inner == 1, adds = l.residual != nullptr;
  for_blocks(l, acc, begin, end, [&](const Block& block, int64_t offset, int64_t count) BPU_INLINE_LAMBDA {
    if (varies) {
      adds ? output_block<true, true>(l, p, block, offset, count, to)
           : output_block<true, false>(l, p, block, offset, count, to);
    } else {
      adds ? output_block<false, true>(l, p, block, offset, count, to)
           : output_block<false, false>(l, p, block, offset, count, to);
    }
  });
}

BPU_CLONES void extremes_blocks(const BpuLayer& l, const Parameters& p, const float* acc, int64_t begin, int64_t end,
                                Extremes& found) {
  const bool varies = l.inner == 1, adds = l.residual_value != nullptr;
  for_blocks(l, acc, begin, end, [&](const Block& block, int64_t offset, int64_t count) BPU_INLINE_LAMBDA {
    if (varies) {
      adds ? extremes_block<true, true>(l, p, block, offset, count, found)
           : extremes_block<true, false>(l, p, block, offset, count, found);
    } else {
      adds ? extremes_block<false, true>(l, p, block, offset, count, found)
           : extremes_block<false, false>(l, p, block, offset, count, found);
    }
  });
}

constexpr int64_t kLanes = 16;

// Adds the elements of a run to its channel's sum, in lanes that one vector holds if they fill them.
BPU_INLINE void add_run(const float* BPU_RESTRICT values, int64_t length, double& sum) {
  if (length < kLanes) {
    for (int64_t i = 0; i < length; ++i) sum += static_cast<double>(values[i]);
    return;
  }
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) lanes[k] += values[i + k];
  }
  for (int64_t k = 0; i < length; ++i, ++k) lanes[k] += values[i];
  for (const float lane : lanes) sum += static_cast<double>(lane);
}

// Adds rows of one element per channel, the first of which begins at a channel; `partial` has an entry per channel.
BPU_INLINE void add_rows(const float* values, int64_t count, int64_t channel, int64_t channels, float* partial) {
  for (int64_t begin = 0; begin < count;) {
    const int64_t length = std::min(channels - channel, count - begin);
    const float* BPU_RESTRICT row = values + begin;
    float* BPU_RESTRICT to = partial + channel;
    for (int64_t i = 0; i < length; ++i) to[i] += row[i];
    begin += length;
    channel = 0;
  }
}

// Masks blocks of a gradient, and adds its elements to the sums of their channels.
BPU_CLONES void gradient_blocks(const BpuLayer& l, const float* gradient, const uint8_t* mask, float* masked,
                                int64_t begin, int64_t end, double* sums) {
  std::vector<float> partial(l.inner == 1 ? static_cast<std::size_t>(l.channels) : 0);
  const int64_t all = elements(l);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t offset = index * kBlock, count = std::min(kBlock, all - offset);
    float* to = masked + offset;
    keep_where(mask + offset / 8, gradient + offset, count, to);
    if (sums == nullptr) continue;
    if (l.inner == 1) {
      add_rows(to, count, offset % l.channels, l.channels, partial.data());
    } else {
      for_runs(l, offset, count, [&](const Run& run)
                                     BPU_INLINE_LAMBDA { add_run(to + run.begin, run.length, sums[run.channel]); });
    }
  }
  for (std::size_t c = 0; sums != nullptr && c < partial.size(); ++c) sums[c] += static_cast<double>(partial[c]);
}

// Activations never fall, so the ends of what they give are what they give of the ends.
float activated(int32_t activation, float real) {
  const float positive = activation != 0 && real < 0.0f ? 0.0f : real;
  return activation == 2 && positive > 6.0f ? 6.0f : positive;
}

}  // namespace

void layer_range(const BpuLayer& layer, const float* accumulators, float* found, int threads) {
  const Parameters parameters(layer);
  Extremes all;
  std::mutex mutex;
  parallel_for(blocks(layer), kGrain, threads, [&](int64_t begin, int64_t end) {
    Extremes part;
    extremes_blocks(layer, parameters, accumulators, begin, end, part);
    const std::lock_guard<std::mutex> lock(mutex);
    all.low = std::min(all.low, part.low);
    all.high = std::max(all.high, part.high);
    all.unordered |= part.unordered;
  });
  const float nan = std::numeric_limits<float>::quiet_NaN();
  found[0] = all.unordered ? nan : activated(layer.activation, all.low);
  found[1] = all.unordered ? nan : activated(layer.activation, all.high);
}

void layer_output(const BpuLayer& layer, const float* accumulators, int8_t* steps, float* values, uint8_t* mask,
                  int threads) {
  const Parameters parameters(layer);
  const Outputs to{steps, values, mask};
  parallel_for(blocks(layer), kGrain, threads, [&](int64_t begin, int64_t end) {
    output_blocks(layer, parameters, accumulators, to, begin, end);
  });
}

}  // namespace bpu

int32_t bpu_layer_range(const BpuLayer* layer, const float* accumulators, float* found, int32_t threads) {
  return bpu::without_throwing([&] { bpu::layer_range(*layer, accumulators, found, threads); });
}

int32_t bpu_layer_gradient(const BpuLayer* layer, const float* gradient, const uint8_t* mask, float* masked, float* sums,
                           int32_t threads) {
  return bpu::without_throwing([&] {
    const auto channels = static_cast<std::size_t>(sums == nullptr ? 0 : layer->channels);
    std::vector<double> all(channels);
    std::mutex mutex;
    bpu::parallel_for(bpu::blocks(*layer), bpu::kGrain, threads, [&](int64_t begin, int64_t end) {
      std::vector<double> part(channels);
      bpu::gradient_blocks(*layer, gradient, mask, masked, begin, end, sums == nullptr ? nullptr : part.data());
      const std::lock_guard<std::mutex> lock(mutex);
      for (std::size_t c = 0; c < channels; ++c) all[c] += part[c];
    });
    for (std::size_t c = 0; c < channels; ++c) sums[c] = static_cast<float>(all[c]);
  });
}
