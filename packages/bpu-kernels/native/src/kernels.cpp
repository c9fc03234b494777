// Chooses the kernels of an instruction set.
#include "kernels_of.h"

namespace bpu {

const Kernels& kernels_of(Isa isa) {
#if defined(BPU_ENGINE_X86)
  if (isa == Isa::avx512) return avx512_kernels();
  if (isa == Isa::avx2) return avx2_kernels();
#endif
  static_cast<void>(isa);
  return portable_kernels();
}

}  // namespace bpu
