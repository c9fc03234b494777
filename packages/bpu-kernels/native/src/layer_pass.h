// The passes over a layer's accumulators, for callers within the library; engine.h describes them.
#pragma once

#include "engine.h"

namespace bpu {

void layer_range(const BpuLayer& layer, const float* accumulators, float* found, int threads);

void layer_output(const BpuLayer& layer, const float* accumulators, int8_t* steps, float* values, uint8_t* mask,
                  int threads);

}  // namespace bpu
