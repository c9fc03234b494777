// Reads the words of a plan: numbers, lists, tensors and arrays of constants, each checked against what is there.
//
// A list is its length and its entries. A tensor is space, index, offset, bytes, pitch and the list of its dims. An
// array is the offset of its first byte in the constants and its number of elements.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "tensor.h"

namespace bpu {

struct BadPlan : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Words {
 public:
  Words(const int64_t* words, int64_t count, const uint8_t* constants, int64_t constant_bytes)
      : words_(words), count_(count), constants_(constants), constant_bytes_(constant_bytes) {}

  int64_t next() {
    if (at_ >= count_) throw BadPlan("the words of the plan end too early");
    return words_[at_++];
  }

  bool done() const { return at_ == count_; }

  std::vector<int64_t> list() {
    std::vector<int64_t> found(checked(next()));
    for (int64_t& entry : found) entry = next();
    return found;
  }

  Tensor tensor() {
    Tensor found;
    found.space = static_cast<Space>(next());
    found.index = next();
    found.offset = next();
    found.bytes = next();
    found.pitch = next();
    found.dims = list();
    return found;
  }

  template <typename T>
  std::vector<T> array() {
    const int64_t offset = next();
    const std::size_t size = checked(next());
    const auto bytes = static_cast<int64_t>(size * sizeof(T));
    if (offset < 0 || offset > constant_bytes_ - bytes) throw BadPlan("an array leaves the constants of the plan");
    std::vector<T> found(size);
    if (size != 0) std::memcpy(found.data(), constants_ + offset, static_cast<std::size_t>(bytes));
    return found;
  }

 private:
  static std::size_t checked(int64_t size) {
    if (size < 0 || size > (int64_t{1} << 31)) throw BadPlan("a length in the plan is out of range");
    return static_cast<std::size_t>(size);
  }

  const int64_t* words_;
  int64_t count_;
  const uint8_t* constants_;
  int64_t constant_bytes_;
  int64_t at_ = 0;
};

}  // namespace bpu
