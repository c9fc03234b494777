// Compiles a function several times, for the vectors that processors have, and picks one when the library is loaded.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__ELF__)
#define BPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BPU_CLONES
#endif

#if defined(_MSC_VER)
#define BPU_INLINE __forceinline
#define BPU_RESTRICT __restrict
#else
#define BPU_INLINE inline __attribute__((always_inline))
#define BPU_RESTRICT __restrict__
#endif
