// What a convolution is given, and where its windows lie. Two-dimensional ones have depth 1, linear layers a row of
// positions and a kernel of 1.
#pragma once

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
  std::vector<int64_t> kernel, stride, pad, dilation;  // depth, height, width
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
    return found;
  }

  // Gives the memory of the weights back, once a step has arranged them its own way.
  void drop_weight() { std::vector<int8_t>().swap(weight); }

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }

  int64_t inputs_per_group() const { return in.channels() / groups; }

  // Batch, depth, height and width of an output position.
  std::array<int64_t, 4> place(int64_t position) const {
    std::array<int64_t, 4> at{};
    for (std::size_t axis = 4; axis-- > 0;) {
      at[axis] = position % out.dims[axis];
      position /= out.dims[axis];
    }
    return at;
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
