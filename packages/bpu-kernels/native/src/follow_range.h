// The moving average of a range, and the scale that follows it.
#pragma once

namespace bpu {

// The range and scale of one tensor, or of one channel of it.
struct Followed {
  float min, max, scale;
};

// Takes a batch's smallest and largest value into the range; `steps` is the number of steps that the range is cut into.
// The scale changes only where the range does.
Followed follow_range(const Followed& before, float low, float high, float constant, float steps);

bool is_finite(float value);

}  // namespace bpu
