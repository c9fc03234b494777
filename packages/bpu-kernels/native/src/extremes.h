// The smallest and the largest of values in memory.
#pragma once

#include <cstdint>

namespace bpu {

// The highest is NaN where any value is.
struct Ends {
  float low, high;
};

// The ends of at least one value, read once, on up to `threads` threads.
Ends ends_of(const float* x, int64_t length, int threads);

}  // namespace bpu
