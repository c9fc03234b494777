// From real scales to a layer's integers, as bpu_kernels/multiplier.py chooses them; that is the reference.
#pragma once

#include <cstdint>
#include <vector>

#include "engine.h"

namespace bpu {

// Real scales of a layer's operands; arrays have one entry per output channel.
struct RealScales {
  float x, out, residual;  // the residual's is 0 where there is none
  const double* weight;
  const float* bias;   // null: none
  const double* sums;  // of the absolute integers of a channel's weights
};

// What `BpuLayer` points to, one entry per channel.
struct ChosenParameters {
  std::vector<int32_t> before, accu, scale, rounding, right;
  std::vector<int32_t> residual_scale, residual_left, residual_right;

  void give_to(BpuLayer& layer) const;
};

// Chooses for an int8 layer with an int8 output.
ChosenParameters choose_parameters(const BpuMarch& march, const RealScales& real, int64_t channels);

// Whether a channel's weights have too small a scale for its bias and residual to stay within the hardware's ranges.
bool is_scale_too_small(const BpuMarch& march, const RealScales& real, int64_t channels);

}  // namespace bpu
