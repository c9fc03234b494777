// The rule of bpu_qconfig's moving averages, in float32 as there. Apart from the passes, whose compiler may take every
// number as finite.
#include "follow_range.h"

#include <algorithm>
#include <cmath>

namespace bpu {
namespace {

float moved_end(float old_end, float new_end, float constant) {
  if (constant == 1.0f || std::isinf(old_end)) return new_end;
  return old_end + constant * (new_end - old_end);
}

}  // namespace

Followed follow_range(const Followed& before, float low, float high, float constant, float steps) {
  constexpr float kSmallestScale = 0x1p-40f;
  const float min = -moved_end(-before.min, -low, constant), max = moved_end(before.max, high, constant);
  const float amplitude = std::max(-min, max);
  const bool same = amplitude == std::max(-before.min, before.max);
  return {min, max, same ? before.scale : std::max(2.0f * amplitude / steps, kSmallestScale)};
}

bool is_finite(float value) { return std::isfinite(value); }

}  // namespace bpu
