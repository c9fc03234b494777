// What a convolution is given, and where its windows and its outputs lie. Two-dimensional ones have depth 1, linear
// layers a row of positions and a kernel of 1. Its outputs may be a lattice of the output's positions, every `step`-th
// from `first` on, as those of a transposed convolution that take the same taps are.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "requantize.h"
#include "residual.h"
#include "step.h"
#include "tensor.h"
#include "words.h"

namespace bpu {

struct Convolution {
  Tensor in, out;                      // five axes: batch, depth, height, width, channels
  std::vector<int64_t> kernel, stride, pad, dilation, step, first;  // depth, height, width; pad may be negative
  std::array<int64_t, 4> places;       // batch, depth, height and width of the lattice
  int64_t groups;
  bool positive;                       // no value of the input is below 0
  std::vector<int8_t> weight;          // output channel, depth, height, width, input channel of the group
  Residual residual;
  Requantizer requantizer;

  static Convolution read(Words& words) {
    Convolution found;
    found.in = words.tensor();
    found.out = words.tensor();
    found.kernel = words.list();
    found.stride = words.list();
    found.pad = words.list();
    found.dilation = words.list();
    found.step = words.list();
    found.first = words.list();
    found.groups = words.next();
    found.positive = words.next() != 0;
    found.weight = words.array<int8_t>();
    found.residual = Residual::read(words);
    found.requantizer = Requantizer::read(words);
    const std::size_t parameters = found.requantizer.before.size();
    if (found.in.dims.size() != 5 || found.out.dims.size() != 5 || found.groups < 1 ||
        static_cast<int64_t>(parameters) != found.out.channels() ||
        static_cast<int64_t>(found.weight.size()) != found.out.channels() * found.taps() * found.inputs_per_group()) {
      throw BadPlan("a convolution does not fit its tensors");
    }
    found.places[0] = found.out.dims[0];
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const int64_t length = found.out.dims[axis + 1] - found.first[axis];
      found.places[axis + 1] = std::max<int64_t>((length + found.step[axis] - 1) / found.step[axis], 0);
    }
    return found;
  }

  // Gives the memory of the weights back, once a step has arranged them its own way.
  void drop_weight() { std::vector<int8_t>().swap(weight); }

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }

  int64_t inputs_per_group() const { return in.channels() / groups; }

  // Number of outputs.
  int64_t positions() const { return places[0] * places[1] * places[2] * places[3]; }

  // Whether every position of the output is one.
  bool is_whole() const { return positions() == out.positions(); }

  // Batch, depth, height and width of an output within the lattice.
  std::array<int64_t, 4> place(int64_t position) const {
    std::array<int64_t, 4> at{};
    for (std::size_t axis = 4; axis-- > 0;) {
      at[axis] = position % places[axis];
      position /= places[axis];
    }
    return at;
  }

  // The position, among all of the output, of a place of the lattice.
  int64_t target(const std::array<int64_t, 4>& at) const {
    int64_t found = at[0];
    for (std::size_t axis = 0; axis < 3; ++axis) {
      found = found * out.dims[axis + 1] + first[axis] + at[axis + 1] * step[axis];
    }
    return found;
  }

  // The input position at column 0 of the line (depth and height) that a line of the window lies on, or -1.
  int64_t line(const std::array<int64_t, 4>& at, int64_t line_of_window) const {
    const int64_t offset[] = {line_of_window / kernel[1], line_of_window % kernel[1]};
    int64_t found = at[0];
    for (std::size_t axis = 0; axis < 2; ++axis) {
      const int64_t index = at[axis + 1] * stride[axis] - pad[axis] + offset[axis] * dilation[axis];
      if (index < 0 || index >= in.dims[axis + 1]) return -1;
      found = found * in.dims[axis + 1] + index;
    }
    return found * in.dims[3];
  }

  // The input position under a tap of the window, or -1 in the padding.
  int64_t source(const std::array<int64_t, 4>& at, int64_t tap) const {
    const int64_t start = line(at, tap / kernel[2]);
    const int64_t column = at[3] * stride[2] - pad[2] + tap % kernel[2] * dilation[2];
    return start < 0 || column < 0 || column >= in.dims[3] ? -1 : start + column;
  }
};

}  // namespace bpu
