// Constant: integers of the plan itself; one position of the output a unit.
#include <cstring>

#include "step.h"

namespace bpu {
namespace {

class Constant final : public Step {
 public:
  explicit Constant(Words& words) : out_(words.tensor()), values_(words.array<uint8_t>()) {
    if (static_cast<int64_t>(values_.size()) != out_.positions() * row_bytes()) throw BadPlan("a constant of other size");
  }

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + (1 << 16) / row_bytes(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const auto bytes = static_cast<std::size_t>(row_bytes());
    for (int64_t position = begin; position < end; ++position) {
      std::memcpy(frame.write(out_) + position * out_.pitch * out_.bytes, values_.data() + position * row_bytes(), bytes);
    }
  }

 private:
  int64_t row_bytes() const { return out_.channels() * out_.bytes; }

  Tensor out_;
  std::vector<uint8_t> values_;
};

}  // namespace

std::unique_ptr<Step> make_constant(Words& words, Isa) { return std::make_unique<Constant>(words); }

}  // namespace bpu
