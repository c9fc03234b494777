// Depthwise convolution of int8: every channel has one kernel of its own.
#pragma once

#include <memory>

#include "convolution.h"
#include "kernels.h"

namespace bpu {

// Returns null where it is no depthwise convolution of int8, or 32-bit sums could overflow.
std::unique_ptr<Step> make_depthwise_convolution(const Convolution& given, const Kernels& kernels);

}  // namespace bpu
