// Product of two activations, then (1). Batches are listed as pairs of matrices, so that broadcasting is no concern here.
#include "requantize.h"
#include "step.h"

namespace bpu {
namespace {

class Matmul final : public Step {
 public:
  explicit Matmul(Words& words)
      : x_(words.tensor()),
        y_(words.tensor()),
        out_(words.tensor()),
        x_matrix_(words.array<int64_t>()),
        y_matrix_(words.array<int64_t>()),
        requantizer_(Requantizer::read(words)),
        rows_(out_.dims[out_.dims.size() - 2]) {}

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 65536 / (x_.channels() * out_.channels()); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const int64_t inner = x_.channels(), columns = out_.channels();
    const auto* x = reinterpret_cast<const int8_t*>(frame.read(x_));
    const auto* y = reinterpret_cast<const int8_t*>(frame.read(y_));
    std::vector<int32_t> sum(static_cast<std::size_t>(columns));  // 2^14 a product, so 2^17 terms fit
    std::vector<int64_t> acc(sum.size());
    for (int64_t position = begin; position < end; ++position) {
      const auto matrix = static_cast<std::size_t>(position / rows_);
      const int8_t* row = x + (x_matrix_[matrix] * rows_ + position % rows_) * x_.pitch;
      const int8_t* right = y + y_matrix_[matrix] * inner * y_.pitch;
      std::fill(acc.begin(), acc.end(), 0);
      for (int64_t first = 0; first < inner; first += kTerms) {
        std::fill(sum.begin(), sum.end(), 0);
        for (int64_t k = first; k < std::min(first + kTerms, inner); ++k) {
          for (int64_t c = 0; c < columns; ++c) sum[static_cast<std::size_t>(c)] += row[k] * right[k * y_.pitch + c];
        }
        for (std::size_t c = 0; c < acc.size(); ++c) acc[c] += sum[c];
      }
      for (std::size_t c = 0; c < acc.size(); ++c) acc[c] = requantizer_(acc[c], static_cast<int64_t>(c));
      narrow(acc.data(), out_.bytes, columns, frame.write(out_) + position * out_.pitch * out_.bytes);
    }
  }

 private:
  static constexpr int64_t kTerms = 65536;

  Tensor x_, y_, out_;
  std::vector<int64_t> x_matrix_, y_matrix_;  // which matrix each batch entry multiplies
  Requantizer requantizer_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<Step> make_matmul(Words& words, Isa) { return std::make_unique<Matmul>(words); }

}  // namespace bpu
