// Transposed convolution (section 3 of docs/numerics.md), seen from the output: position y takes x * w[i] for every tap
// i with y + pad - i divisible by the stride.
#include "requantize.h"
#include "residual.h"
#include "step.h"

namespace bpu {
namespace {

class TransposedConvolution final : public Step {
 public:
  explicit TransposedConvolution(Words& words)
      : in_(words.tensor()),
        out_(words.tensor()),
        kernel_(words.list()),
        stride_(words.list()),
        pad_(words.list()),
        groups_(words.next()),
        weight_(words.array<int8_t>()),
        residual_(Residual::read(words)),
        requantizer_(Requantizer::read(words)) {}

  int64_t units() const override { return out_.positions(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    std::vector<int64_t> acc(static_cast<std::size_t>(out_.channels()));
    std::vector<int32_t> x(static_cast<std::size_t>(in_.channels()));
    for (int64_t position = begin; position < end; ++position) {
      std::fill(acc.begin(), acc.end(), 0);
      accumulate(frame, position, x, acc);
      residual_.add(frame, position, acc);
      for (std::size_t c = 0; c < acc.size(); ++c) acc[c] = requantizer_(acc[c], static_cast<int64_t>(c));
      narrow(acc.data(), out_.bytes, out_.channels(), frame.write(out_) + position * out_.pitch * out_.bytes);
    }
  }

 private:
  void accumulate(const Frame& frame, int64_t position, std::vector<int32_t>& x, std::vector<int64_t>& acc) const {
    const int64_t column = position % out_.dims[2], row = position / out_.dims[2] % out_.dims[1];
    const int64_t image = position / out_.dims[2] / out_.dims[1];
    for (int64_t i = 0; i < kernel_[0]; ++i) {
      const int64_t from_row = source(row, i, 0);
      if (from_row < 0) continue;
      for (int64_t j = 0; j < kernel_[1]; ++j) {
        const int64_t from_column = source(column, j, 1);
        if (from_column < 0) continue;
        const int64_t from = (image * in_.dims[1] + from_row) * in_.dims[2] + from_column;
        widen(frame.read(in_) + from * in_.pitch * in_.bytes, in_.bytes, in_.channels(), x.data());
        add_tap(i * kernel_[1] + j, x, acc);
      }
    }
  }

  // The input index that reaches an output index through a tap, or -1.
  int64_t source(int64_t at, int64_t tap, std::size_t axis) const {
    const int64_t scattered = at + pad_[axis] - tap;
    if (scattered < 0 || scattered % stride_[axis] != 0) return -1;
    const int64_t index = scattered / stride_[axis];
    return index < in_.dims[axis + 1] ? index : -1;
  }

  // Weights: input channel, tap, output channel of the group.
  void add_tap(int64_t tap, const std::vector<int32_t>& x, std::vector<int64_t>& acc) const {
    const int64_t taps = kernel_[0] * kernel_[1], outputs = out_.channels() / groups_;
    const int64_t inputs = in_.channels() / groups_;
    for (int64_t i = 0; i < in_.channels(); ++i) {
      const int8_t* row = weight_.data() + (i * taps + tap) * outputs;
      int64_t* sum = acc.data() + i / inputs * outputs;
      for (int64_t o = 0; o < outputs; ++o) sum[o] += int64_t{x[static_cast<std::size_t>(i)]} * row[o];
    }
  }

  Tensor in_, out_;
  std::vector<int64_t> kernel_, stride_, pad_;
  int64_t groups_;
  std::vector<int8_t> weight_;
  Residual residual_;
  Requantizer requantizer_;
};

}  // namespace

std::unique_ptr<Step> make_transposed_convolution(Words& words, Isa) {
  return std::make_unique<TransposedConvolution>(words);
}

}  // namespace bpu
