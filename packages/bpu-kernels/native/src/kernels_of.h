// The kernels of an instruction set.
#pragma once

#include "isa.h"
#include "kernels.h"

namespace bpu {

const Kernels& kernels_of(Isa isa);

}  // namespace bpu
