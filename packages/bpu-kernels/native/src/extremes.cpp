// The smallest and the largest value, found block by block, each looked at for NaN while it is in the cache.
#include "extremes.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "clones.h"
#include "nan.h"
#include "threads.h"

namespace bpu {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kGrain = 1 << 15;

struct Found {
  float low, high;
  bool nan;
};

BPU_CLONES Found find(const float* x, int64_t length) {
  float low = x[0], high = x[0];
  bool nan = false;
  for (int64_t begin = 0; begin < length; begin += kBlock) {
    const float* block = x + begin;
    const int64_t here = std::min(kBlock, length - begin);
    for (int64_t i = 0; i < here; ++i) {
      low = block[i] < low ? block[i] : low;
      high = block[i] > high ? block[i] : high;
    }
    nan |= has_nan(block, here);
  }
  return {low, high, nan};
}

Ends as_ends(const Found& found) {
  return {found.low, found.nan ? std::numeric_limits<float>::quiet_NaN() : found.high};
}

}  // namespace

Ends ends_of(const float* x, int64_t length, int threads) {
  if (threads < 2 || length < 2 * kGrain) return as_ends(find(x, length));
  Found all{x[0], x[0], false};
  std::mutex mutex;
  parallel_for(length, kGrain, threads, [&](int64_t begin, int64_t end) {
    const Found part = find(x + begin, end - begin);
    const std::lock_guard<std::mutex> lock(mutex);
    all = {std::min(all.low, part.low), std::max(all.high, part.high), all.nan || part.nan};
  });
  return as_ends(all);
}

}  // namespace bpu
