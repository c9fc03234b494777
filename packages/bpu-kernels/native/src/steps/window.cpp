// What moves a window over height and width: sums with requantization (12) to (14), (29), and maxima (15).
#include <algorithm>

#include "requantize.h"
#include "step.h"

namespace bpu {
namespace {

// One axis of a window: the input indices that output index `at` covers.
struct Span {
  int64_t begin, end;
};

class Window : public Step {
 public:
  explicit Window(Words& words)
      : in_(words.tensor()), out_(words.tensor()), kernel_(words.list()), stride_(words.list()), pad_(words.list()) {
    if (in_.dims.size() != 4 || out_.dims.size() != 4) throw BadPlan("a window moves over four axes");
  }

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 4096 / (out_.channels() * kernel_[0] * kernel_[1]); }

 protected:
  // Calls `row` with each row of channels in the window of a position; padding is left out.
  template <typename Row>
  void visit(const Frame& frame, int64_t position, Row row) const {
    const int64_t column = position % out_.dims[2], line = position / out_.dims[2] % out_.dims[1];
    const int64_t image = position / out_.dims[2] / out_.dims[1];
    const Span rows = span(line, 0), columns = span(column, 1);
    const auto* from = reinterpret_cast<const int8_t*>(frame.read(in_));
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        row(from + ((image * in_.dims[1] + i) * in_.dims[2] + j) * in_.pitch);
      }
    }
  }


  uint8_t* row_of(const Frame& frame, int64_t position) const { return frame.write(out_) + position * out_.pitch; }

  Tensor in_, out_;

 private:
  Span span(int64_t at, std::size_t axis) const {
    const int64_t start = at * stride_[axis] - pad_[axis];
    return {std::max<int64_t>(start, 0), std::min(start + kernel_[axis], in_.dims[axis + 1])};
  }

  std::vector<int64_t> kernel_, stride_, pad_;
};

class WindowSum final : public Window {
 public:
  explicit WindowSum(Words& words) : Window(words), requantizer_(Requantizer::read(words)) {}

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    std::vector<int32_t> sum(static_cast<std::size_t>(out_.channels()));  // 2^7 a term and at most 2^24 terms
    for (int64_t position = begin; position < end; ++position) {
      std::fill(sum.begin(), sum.end(), 0);
      visit(frame, position, [&](const int8_t* row) {
        for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += row[c];
      });
      for (std::size_t c = 0; c < sum.size(); ++c) {
        sum[c] = static_cast<int32_t>(requantizer_(sum[c], static_cast<int64_t>(c)));
      }
      narrow(sum.data(), out_.bytes, out_.channels(), row_of(frame, position));
    }
  }

 private:
  Requantizer requantizer_;
};

class WindowMax final : public Window {
 public:
  using Window::Window;

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const int64_t channels = out_.channels();
    for (int64_t position = begin; position < end; ++position) {
      auto* to = reinterpret_cast<int8_t*>(row_of(frame, position));
      std::fill(to, to + channels, int8_t{-128});  // which padding is, too
      visit(frame, position, [&](const int8_t* row) {
        for (int64_t c = 0; c < channels; ++c) to[c] = std::max(to[c], row[c]);
      });
    }
  }
};

}  // namespace

std::unique_ptr<Step> make_window_sum(Words& words, Isa) { return std::make_unique<WindowSum>(words); }

std::unique_ptr<Step> make_window_max(Words& words, Isa) { return std::make_unique<WindowMax>(words); }

}  // namespace bpu
