// What this processor can do, asked once.
#include "isa.h"

namespace bpu {

Isa best_isa() {
#if defined(BPU_ENGINE_X86)
  static const Isa found = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      return Isa::avx512;
    }
    return __builtin_cpu_supports("avx2") ? Isa::avx2 : Isa::portable;
  }();
  return found;
#else
  return Isa::portable;
#endif
}

}  // namespace bpu
