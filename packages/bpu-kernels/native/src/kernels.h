// What the kernels of every instruction set take and offer: plain data and function pointers.
//
// Files that are compiled for an instruction set (kernels_avx2.cpp and the like) include this and intrinsics only: an
// inline function of a shared header, compiled there, could be the copy that the linker keeps for all processors.
#pragma once

#include <cstdint>

namespace bpu {

// Output channels go in panels of so many, padded at the end.
constexpr int64_t kPanel = 16;

// Per output channel, what turns 32-bit accumulators into outputs (requantize.h has the rule). The 32-bit arrays are in
// the kernel's order of channels within a panel, the 16-bit ones in the natural order.
struct Finish {
  const int32_t* bias;
  const int32_t* accu;
  const int16_t* scale;
  // A panel with every right shift in 18 .. 31 is short: (v * scale + half) >> right is then
  // (((v * scale) >> 16) + nudge) >> (right - 16) exactly, since half is a multiple of 2^16, and that last shift is
  // (... * factor) >> 16. nudge = half >> 16, factor = 2^(32 - right); all fit 16 bits.
  const uint8_t* is_short;  // per panel
  const int16_t* nudge;
  const int16_t* factor;
  const int32_t* half;
  const int32_t* right;
  const int32_t* residual_scale;
  const int32_t* residual_left;  // shifts of the residual's term, one of them 0
  const int32_t* residual_right;
  bool relu;
};

// Rows of the output: `channels` of them from the first panel on.
struct Rows {
  uint8_t* out;
  int64_t out_stride;  // bytes
  int64_t out_bytes;   // of an element, 1 or 2; 4 for accumulators shifted by `right` alone, (2)
  const int8_t* residual;  // null without one
  int64_t residual_stride;
  int64_t channels;
};

// A block of a product: rows x depth by depth x panels.
struct Product {
  const uint8_t* a;
  int64_t a_stride;  // bytes
  int64_t rows;
  const uint8_t* weights;
  int64_t panel_bytes;
  int64_t panels;
  int64_t depth;           // in steps of the kernel
  // Kernels that take two quads a step may visit the steps of a panel in any order: `visits` has, per panel and step,
  // the offset in a row of the left operand, and `paired` how many come first with sums that fit 16 bits.
  const int32_t* visits;
  const int32_t* paired;
  Finish finish;
  Rows to;
};

// How a kernel wants its operands, and the functions.
struct GemmKernel {
  bool wide;          // the left operand has 16 bits an element, otherwise 8
  bool offset;        // ... and is unsigned: the input plus 128
  int64_t step;       // elements of depth that one step takes
  int64_t quad;       // of which so many lie next to each other, per channel
  const int8_t* order;  // position in a panel -> channel
  void (*multiply)(const Product&);
  void (*convert)(const uint8_t* from, int64_t count, uint8_t* to);  // input elements to those of the left operand
};

// Positions along a line of a depthwise convolution of int8.
struct DepthwiseLine {
  int64_t positions;
  const int8_t** taps;      // rows of channels for the first position, a multiple of 4; moved on for the others
  const int64_t* advances;  // by so many bytes each
  int64_t pairs;            // of taps; what is beyond the kernel's taps are rows of zeros
  const int16_t* weights;  // panel, pair of taps, channel in the kernel's order, tap of the pair
  const int8_t* positive_weights;  // as the kernel's layout says; null where an input may be negative
  Finish finish;
  Rows to;
};

// Weights for inputs without negative values: block of channels, group of taps, channel, tap of the group.
struct DepthwiseLayout {
  int64_t block;        // 0 where the kernel has no use for them
  int64_t group;        // at most 4
  const int8_t* order;  // position in a block -> channel
};

struct DepthwiseKernel {
  const int8_t* order;
  DepthwiseLayout positive;
  void (*run)(const DepthwiseLine&);
};

// The kernels of an instruction set; those of a lesser one where it has none of its own.
struct Kernels {
  GemmKernel int8;      // any int8 input
  GemmKernel positive;  // int8 input without negative values
  GemmKernel int16;
  DepthwiseKernel depthwise;
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace bpu
