// Compiles a function several times, for the vectors that processors have, and picks one when the library is loaded.
#pragma once

#include <cstdint>  // defines __GLIBC__: the choice at load time is the work of its loader

#if defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define BPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BPU_CLONES
#endif

#if defined(_MSC_VER)
#define BPU_INLINE __forceinline
#define BPU_INLINE_LAMBDA
#define BPU_RESTRICT __restrict
#else
#define BPU_INLINE inline __attribute__((always_inline))
#define BPU_INLINE_LAMBDA __attribute__((always_inline))
#define BPU_RESTRICT __restrict__
#endif
