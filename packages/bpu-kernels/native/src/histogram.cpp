// Counts magnitudes in bins, for the observers that choose a threshold from a histogram.
#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <vector>

#include "clones.h"
#include "engine.h"
#include "threads.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int64_t kBlock = 1024;
constexpr int kParts = 4;  // neighbours often fall into one bin; counted apart they do not wait for each other
constexpr int64_t kApart = 16;  // entries between the parts, for processors take addresses 4096 bytes apart for one
constexpr int64_t kMost = int64_t{1} << 31;  // so many are counted in 32 bits, which keeps the counters in the cache

BPU_CLONES void indices(const float* BPU_RESTRICT x, int64_t count, float bins_per_unit, float last,
                        int32_t* BPU_RESTRICT found) {
  for (int64_t i = 0; i < count; ++i) {
    const float place = std::fabs(x[i]) * bins_per_unit;
    found[i] = static_cast<int32_t>(place > 0.0f ? (place < last ? place : last) : 0.0f);
  }
}

// Adds the counts of at most kMost elements.
void count(const float* x, int64_t length, float bins_per_unit, int64_t bins, int64_t* counts) {
  const int64_t stride = bins + kApart;
  std::vector<uint32_t> parts(static_cast<std::size_t>(stride * kParts));
  uint32_t *first = parts.data(), *second = first + stride, *third = second + stride, *fourth = third + stride;
  std::array<int32_t, kBlock> index{};
  for (int64_t begin = 0; begin < length; begin += kBlock) {
    const int64_t here = std::min(kBlock, length - begin);
    indices(x + begin, here, bins_per_unit, static_cast<float>(bins - 1), index.data());
    const int32_t* at = index.data();
    const int32_t* end = at + here;
    for (; end - at >= kParts; at += kParts) {
      ++first[at[0]];
      ++second[at[1]];
      ++third[at[2]];
      ++fourth[at[3]];
    }
    for (; at < end; ++at) ++first[*at];
  }
  for (int64_t i = 0; i < bins; ++i) counts[i] += int64_t{first[i]} + second[i] + third[i] + fourth[i];
}

}  // namespace
}  // namespace bpu

int32_t bpu_histogram(const float* x, int64_t rows, int64_t length, const float* amplitude, int64_t bins,
                      double* counts, int32_t threads) {
  return bpu::without_throwing([&] {
    std::mutex mutex;
    for (int64_t row = 0; row < rows; ++row) {
      const float bins_per_unit = amplitude[row] > 0.0f ? static_cast<float>(bins) / amplitude[row] : 0.0f;
      std::vector<int64_t> all(static_cast<std::size_t>(bins));
      bpu::parallel_for(length, bpu::kGrain, threads, [&](int64_t begin, int64_t end) {
        std::vector<int64_t> part(static_cast<std::size_t>(bins));
        for (int64_t at = begin; at < end; at += bpu::kMost) {
          const int64_t here = std::min(bpu::kMost, end - at);
          bpu::count(x + row * length + at, here, bins_per_unit, bins, part.data());
        }
        const std::lock_guard<std::mutex> lock(mutex);
        for (std::size_t i = 0; i < all.size(); ++i) all[i] += part[i];
      });
      std::copy(all.begin(), all.end(), counts + row * bins);
    }
  });
}
