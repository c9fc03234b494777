// The instruction sets that kernels are written for, least to most.
#pragma once

#include <cstdint>

namespace bpu {

enum class Isa : int32_t { portable = 0, avx2 = 1, avx512 = 2 };

// The most that processor, operating system and this build can do.
Isa best_isa();

}  // namespace bpu
