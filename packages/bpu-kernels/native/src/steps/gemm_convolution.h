// Convolution as a product of matrices: rows are output positions, depth is kernel and input channels.
#pragma once

#include <memory>

#include "convolution.h"
#include "kernels.h"

namespace bpu {

// Returns null where 32-bit sums could overflow, or types are others than kernels have.
std::unique_ptr<Step> make_gemm_convolution(const Convolution& given, const Kernels& kernels);

}  // namespace bpu
