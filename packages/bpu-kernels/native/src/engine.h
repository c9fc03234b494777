// The C interface of the engine: a plan is made once from a Program, then run as often as wanted.
//
// The plan arrives as a list of words (int64) and a block of constants, written by bpu_kernels/engine/plan.py; words.h
// describes the words. No function throws, and none keeps a pointer that it was given.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#define BPU_ENGINE_EXPORT __declspec(dllexport)
#else
#define BPU_ENGINE_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

struct BpuPlan;

// Changes with the words of a plan, so that a library of another version is not used.
BPU_ENGINE_EXPORT int32_t bpu_engine_version(void);

// The most that this processor and this library can do: 0 portable, 1 AVX2, 2 AVX-512 with VNNI.
BPU_ENGINE_EXPORT int32_t bpu_engine_isa(void);

// Returns a plan for the instruction set `isa` (as above, clipped to what there is), or null and a reason in `message`.
BPU_ENGINE_EXPORT BpuPlan* bpu_plan_create(const int64_t* words, int64_t count, const uint8_t* constants,
                                           int64_t constant_bytes, int32_t isa, char* message, int64_t message_bytes);

// Runs the steps from `begin` to before `end` on a workspace of the plan; returns 0, or 1 without memory.
// Inputs and outputs are dense arrays in the order of the plan. Several threads may run one plan on different
// workspaces.
BPU_ENGINE_EXPORT int32_t bpu_plan_run(const BpuPlan* plan, uint8_t* workspace, const uint8_t* const* inputs,
                                       uint8_t* const* outputs, int64_t begin, int64_t end, int32_t threads);

BPU_ENGINE_EXPORT void bpu_plan_destroy(BpuPlan* plan);
}
