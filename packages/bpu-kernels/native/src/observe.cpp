// What an observer does with a batch: its range moves the average, and the scale follows.
#include <vector>

#include "engine.h"
#include "extremes.h"
#include "follow_range.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int32_t kNotFinite = 2;

// Finds the smallest value of each row, negated, and behind them the largest; returns whether all are finite.
bool find_ends(const float* x, int64_t rows, int64_t length, float* ends, int threads) {
  for (int64_t row = 0; row < rows; ++row) {
    const Ends found = ends_of(x + row * length, length, threads);
    if (!is_finite(found.low) || !is_finite(found.high)) return false;
    ends[row] = -found.low;
    ends[rows + row] = found.high;
  }
  return true;
}

void follow(const float* ends, int64_t rows, const BpuObserved& o) {
  for (int64_t row = 0; row < rows; ++row) {
    const Followed before{o.min[row], o.max[row], o.scale[row]};
    const Followed after = follow_range(before, -ends[row], ends[rows + row], o.constant, o.steps);
    o.min[row] = after.min;
    o.max[row] = after.max;
    o.scale[row] = after.scale;
  }
}

}  // namespace
}  // namespace bpu

int32_t bpu_row_ends(const float* x, int64_t rows, int64_t length, float* ends, int32_t threads) {
  bool finite = true;
  const int32_t failed = bpu::without_throwing([&] { finite = bpu::find_ends(x, rows, length, ends, threads); });
  return failed != 0 || finite ? failed : bpu::kNotFinite;
}

void bpu_follow_ends(const float* ends, int64_t rows, const BpuObserved* observed) {
  bpu::follow(ends, rows, *observed);
}

int32_t bpu_observe_rows(const float* x, int64_t rows, int64_t length, const BpuObserved* observed, int32_t threads) {
  bool finite = true;
  const int32_t failed = bpu::without_throwing([&] {
    std::vector<float> ends(static_cast<std::size_t>(2 * rows));
    finite = bpu::find_ends(x, rows, length, ends.data(), threads);
    if (finite) bpu::follow(ends.data(), rows, *observed);
  });
  return failed != 0 || finite ? failed : bpu::kNotFinite;
}
