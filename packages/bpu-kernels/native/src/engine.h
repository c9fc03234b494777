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

// Whether `count` blocks of memory, of so many bytes, hold the same bytes as others: 1, or 0 where one differs.
BPU_ENGINE_EXPORT int32_t bpu_same_blocks(const void* const* blocks, const void* const* others, const int64_t* bytes,
                                          int64_t count);

// What follows serves training: passes over float32 tensors, each reading and writing memory once. They return 0, or 1
// without memory.

// The accumulators of a layer and what becomes of them. They lie in rows: outer x channels rows of `inner` elements,
// or, where `inner` is 1, outer rows of one element per channel. Arrays have one entry per channel.
struct BpuLayer {
  int64_t outer, channels, inner;
  const float* unit;  // real value of an accumulator's unit
  const float* bias;  // real
  const int32_t *before, *accu, *scale, *rounding, *right;  // of requantize.h; `rounding` belongs to the second shift
  const int32_t *residual_scale, *residual_left, *residual_right;
  const int8_t* residual;       // null: none
  const float* residual_value;  // real
  int32_t activation;           // 0 none, 1 ReLU, 2 ReLU6
  int32_t low, high;            // of the output's integers
  float value_scale;            // of the output
  float pass_low, pass_high;    // real values between which the gradient passes
};

// Finds the smallest and the largest real value of the output; NaN, twice, where there is one.
BPU_ENGINE_EXPORT int32_t bpu_layer_range(const BpuLayer* layer, const float* accumulators, float* found, int32_t threads);

// What a march allows of the parameters that are chosen for a layer.
struct BpuMarch {
  int32_t rounds;  // at the second shift; otherwise it floors
  int32_t bias_bits, most_bias_shift;
  int32_t most_accu_shift, most_right_shift;
  int32_t least_residual_shift, most_residual_shift;
};

// The moving average of a range, and the scale that follows it: one entry, or one per channel. It is read and written.
struct BpuObserved {
  float *scale, *min, *max;  // the last two are not looked at where nothing is observed
  float constant;  // of the average
  float steps;     // into which the range is cut
};

// A layer under training. Of `layer` only what describes the accumulators, the residual and the activation is read.
struct BpuTraining {
  BpuLayer layer;
  BpuMarch march;
  BpuObserved output;
  int32_t observes;  // whether the output's range is taken into its average first
  int32_t quant_min, quant_max;
  float x_scale, residual_scale;  // the residual's is 0 where there is none
  const double* weight_scale;     // per channel, as what follows
  const float* bias;              // real; null: none
  const double* sums;             // of the weights' absolute integers
};

// Observes the output, chooses the board's parameters, and gives the output's integers, their real values (which may
// take the accumulators' place), and a bit per element that says whether the gradient passes (`mask` may be null).
// Returns 2, and changes nothing, where a real output to be observed is not finite.
BPU_ENGINE_EXPORT int32_t bpu_train_layer(const BpuTraining* training, const float* accumulators, int8_t* steps,
                                       float* values, uint8_t* mask, int32_t threads);

// Rows of weights to be fake-quantized, each by its scale.
struct BpuRows {
  const float* x;
  int64_t rows, length;
  BpuObserved observed;
  int32_t observes;
  int32_t quant_min, quant_max;
  float* steps;     // integers, as float32
  int8_t* stored;   // the same integers
  double* sums;     // of their absolute values
  uint8_t* mask;    // a bit per element, whether the gradient passes; every row begins a byte
  int64_t clipped;  // how many bits are 0
};

// Observes rows of weights and fake-quantizes them. Returns 2, and changes no range or scale, where one is not finite.
BPU_ENGINE_EXPORT int32_t bpu_train_rows(BpuRows* rows, int32_t threads);

// Finds the ends of each row: its smallest value, negated, and behind those of all rows the largest ones. Returns 2
// where one is not finite.
BPU_ENGINE_EXPORT int32_t bpu_row_ends(const float* x, int64_t rows, int64_t length, float* ends, int32_t threads);

// Takes the ends of rows into their ranges, and the scales follow.
BPU_ENGINE_EXPORT void bpu_follow_ends(const float* ends, int64_t rows, const BpuObserved* observed);

// Both at once. Returns 2, and changes nothing, where a value is not finite.
BPU_ENGINE_EXPORT int32_t bpu_observe_rows(const float* x, int64_t rows, int64_t length, const BpuObserved* observed,
                                        int32_t threads);

// Whether bias and residual need a larger scale of the weights than they have; of `training` its layer's accumulators and
// what is to be written are not looked at.
BPU_ENGINE_EXPORT int32_t bpu_scale_too_small(const BpuTraining* training);

// Copies the gradient of a layer's output where its bit is 1, and writes 0 elsewhere; sums the result per channel
// (`sums` may be null). Of the layer only its sizes are read.
BPU_ENGINE_EXPORT int32_t bpu_layer_gradient(const BpuLayer* layer, const float* gradient, const uint8_t* mask,
                                          float* masked, float* sums, int32_t threads);

// Gives the real values of rows of integers, each by its scale.
BPU_ENGINE_EXPORT int32_t bpu_row_values(const int8_t* stored, int64_t rows, int64_t length, const float* scale,
                                      float* values, int32_t threads);

// Writes 0 into the rows of a gradient where their bit is 0; every row of bits begins a byte.
BPU_ENGINE_EXPORT int32_t bpu_mask_rows(float* gradient, const uint8_t* mask, int64_t rows, int64_t length,
                                     int32_t threads);

// Counts how many elements of each row of x lie in each of `bins` equal bins over 0 .. amplitude: their index is
// |x| * (bins / amplitude) rounded down, at most the last. What is not a number counts as 0.
BPU_ENGINE_EXPORT int32_t bpu_histogram(const float* x, int64_t rows, int64_t length, const float* amplitude,
                                     int64_t bins, double* counts, int32_t threads);
}
