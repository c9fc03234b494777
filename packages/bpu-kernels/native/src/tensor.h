// A tensor of a plan: where it lies and how it is laid out. The last axis is dense; the positions that the other axes
// span are `pitch` elements apart, so that a tensor can be a slice of the channels of a larger one.
#pragma once

#include <cstdint>
#include <vector>

namespace bpu {

enum class Space : int64_t { arena = 0, input = 1, output = 2 };

struct Tensor {
  Space space;
  int64_t index;   // which input or output
  int64_t offset;  // in bytes
  int64_t bytes;   // of an element: 1, 2 or 4
  int64_t pitch;   // in elements
  std::vector<int64_t> dims;

  int64_t channels() const { return dims.empty() ? 1 : dims.back(); }

  int64_t positions() const {
    int64_t product = 1;
    for (std::size_t axis = 0; axis + 1 < dims.size(); ++axis) product *= dims[axis];
    return product;
  }
};

// The memory of one run.
struct Frame {
  uint8_t* arena;
  const uint8_t* const* inputs;
  uint8_t* const* outputs;

  const uint8_t* read(const Tensor& tensor) const {
    const uint8_t* base = tensor.space == Space::arena   ? arena
                          : tensor.space == Space::input ? inputs[tensor.index]
                                                         : outputs[tensor.index];
    return base + tensor.offset;
  }

  uint8_t* write(const Tensor& tensor) const {
    return (tensor.space == Space::arena ? arena : outputs[tensor.index]) + tensor.offset;
  }
};

// Widens `count` elements; the inverse narrows values that fit.
template <typename Wide>
void widen(const uint8_t* from, int64_t bytes, int64_t count, Wide* to) {
  if (bytes == 1) {
    const auto* typed = reinterpret_cast<const int8_t*>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = typed[i];
  } else if (bytes == 2) {
    const auto* typed = reinterpret_cast<const int16_t*>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = typed[i];
  } else {
    const auto* typed = reinterpret_cast<const int32_t*>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = typed[i];
  }
}

template <typename Wide>
void narrow(const Wide* from, int64_t bytes, int64_t count, uint8_t* to) {
  if (bytes == 1) {
    auto* typed = reinterpret_cast<int8_t*>(to);
    for (int64_t i = 0; i < count; ++i) typed[i] = static_cast<int8_t>(from[i]);
  } else if (bytes == 2) {
    auto* typed = reinterpret_cast<int16_t*>(to);
    for (int64_t i = 0; i < count; ++i) typed[i] = static_cast<int16_t>(from[i]);
  } else {
    auto* typed = reinterpret_cast<int32_t*>(to);
    for (int64_t i = 0; i < count; ++i) typed[i] = static_cast<int32_t>(from[i]);
  }
}

}  // namespace bpu
