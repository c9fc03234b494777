// Additions (8), (9) and product (10) of two tensors that may broadcast, and rescale (16), (17); one position a unit.
#include "requantize.h"
#include "step.h"

namespace bpu {
namespace {

// An operand seen at the output's shape; strides are 0 along axes that it repeats.
struct Operand {
  Tensor tensor;
  std::vector<int64_t> strides;

  static Operand read(Words& words) {
    Tensor tensor = words.tensor();
    return {std::move(tensor), words.list()};
  }

  // Reads the row of an output position; a stride of 0 repeats its one element.
  void row(const Frame& frame, const std::vector<int64_t>& dims, int64_t position, std::vector<int64_t>& values) const {
    int64_t offset = 0;
    for (std::size_t axis = dims.size() - 1; axis-- > 0;) {
      offset += position % dims[axis] * strides[axis];
      position /= dims[axis];
    }
    const uint8_t* from = frame.read(tensor) + offset * tensor.bytes;
    if (strides.back() != 0) return widen(from, tensor.bytes, static_cast<int64_t>(values.size()), values.data());
    widen(from, tensor.bytes, 1, values.data());
    std::fill(values.begin() + 1, values.end(), values[0]);
  }
};

class Pairwise : public Step {
 public:
  explicit Pairwise(Words& words) : x_(Operand::read(words)), y_(Operand::read(words)), out_(words.tensor()) {}

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 4096 / out_.channels(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    std::vector<int64_t> x(static_cast<std::size_t>(out_.channels())), y(x.size());
    for (int64_t position = begin; position < end; ++position) {
      x_.row(frame, out_.dims, position, x);
      y_.row(frame, out_.dims, position, y);
      combine(x, y);
      narrow(x.data(), out_.bytes, out_.channels(), frame.write(out_) + position * out_.pitch * out_.bytes);
    }
  }

 protected:
  // Leaves the outputs in x.
  virtual void combine(std::vector<int64_t>& x, const std::vector<int64_t>& y) const = 0;

 private:
  Operand x_, y_;
  Tensor out_;
};

class Add final : public Pairwise {
 public:
  explicit Add(Words& words)
      : Pairwise(words),
        x_scale_(words.array<int32_t>()),
        x_shift_(words.array<int32_t>()),
        y_scale_(words.array<int32_t>()),
        y_shift_(words.array<int32_t>()),
        requantizer_(Requantizer::read(words)) {}

 protected:
  void combine(std::vector<int64_t>& x, const std::vector<int64_t>& y) const override {
    for (std::size_t c = 0; c < x.size(); ++c) {
      const int64_t acc = shift_left(x[c] * x_scale_[c], x_shift_[c]) + shift_left(y[c] * y_scale_[c], y_shift_[c]);
      x[c] = requantizer_(acc, static_cast<int64_t>(c));
    }
  }

 private:
  std::vector<int32_t> x_scale_, x_shift_, y_scale_, y_shift_;
  Requantizer requantizer_;
};

class Multiply final : public Pairwise {
 public:
  explicit Multiply(Words& words) : Pairwise(words), requantizer_(Requantizer::read(words)) {}

 protected:
  void combine(std::vector<int64_t>& x, const std::vector<int64_t>& y) const override {
    for (std::size_t c = 0; c < x.size(); ++c) x[c] = requantizer_(x[c] * y[c], static_cast<int64_t>(c));
  }

 private:
  Requantizer requantizer_;
};

class Rescale final : public Step {
 public:
  explicit Rescale(Words& words) : in_(words.tensor()), out_(words.tensor()), requantizer_(Requantizer::read(words)) {}

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 4096 / out_.channels(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    std::vector<int64_t> x(static_cast<std::size_t>(out_.channels()));
    for (int64_t position = begin; position < end; ++position) {
      widen(frame.read(in_) + position * in_.pitch * in_.bytes, in_.bytes, in_.channels(), x.data());
      for (std::size_t c = 0; c < x.size(); ++c) x[c] = requantizer_(x[c], static_cast<int64_t>(c));
      narrow(x.data(), out_.bytes, out_.channels(), frame.write(out_) + position * out_.pitch * out_.bytes);
    }
  }

 private:
  Tensor in_, out_;
  Requantizer requantizer_;
};

}  // namespace

std::unique_ptr<Step> make_add(Words& words, Isa) { return std::make_unique<Add>(words); }

std::unique_ptr<Step> make_multiply(Words& words, Isa) { return std::make_unique<Multiply>(words); }

std::unique_ptr<Step> make_rescale(Words& words, Isa) { return std::make_unique<Rescale>(words); }

}  // namespace bpu
