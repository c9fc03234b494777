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

BPU_CLONES void indices(const float* BPU_RESTRICT x, int64_t count, float bins_per_unit, float last,
                        int32_t* BPU_RESTRICT found) {
  for (int64_t i = 0; i < count; ++i) {
    const float place = std::fabs(x[i]) * bins_per_unit;
    found[i] = static_cast<int32_t>(place > 0.0f ? (place < last ? place : last) : 0.0f);
  }
}

void count(const float* x, int64_t length, float bins_per_unit, int64_t bins, int64_t* counts) {
  const auto size = static_cast<std::size_t>(bins);
  std::vector<int64_t> parts(size * kParts);
  std::array<int32_t, kBlock> index{};
  for (int64_t begin = 0; begin < length; begin += kBlock) {
    const int64_t here = std::min(kBlock, length - begin);
    indices(x + begin, here, bins_per_unit, static_cast<float>(bins - 1), index.data());
    for (int64_t i = 0; i < here; ++i) {
      ++parts[static_cast<std::size_t>(i % kParts) * size + static_cast<std::size_t>(index[static_cast<std::size_t>(i)])];
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i) counts[i % size] += parts[i];
}

}  // namespace
}  // namespace bpu

int32_t bpu_histogram(const float* x, int64_t rows, int64_t length, const float* bins_per_unit, int64_t bins,
                      int64_t* counts, int32_t threads) {
  return bpu::without_throwing([&] {
    std::mutex mutex;
    for (int64_t row = 0; row < rows; ++row) {
      bpu::parallel_for(length, bpu::kGrain, threads, [&](int64_t begin, int64_t end) {
        std::vector<int64_t> part(static_cast<std::size_t>(bins));
        bpu::count(x + row * length + begin, end - begin, bins_per_unit[row], bins, part.data());
        const std::lock_guard<std::mutex> lock(mutex);
        for (int64_t i = 0; i < bins; ++i) counts[row * bins + i] += part[static_cast<std::size_t>(i)];
      });
    }
  });
}
