// Operators of one element: ReLU (19), the int8 table (20), the int16 segment table (21) to (24).
#include <algorithm>

#include "fixed_point.h"
#include "step.h"

namespace bpu {
namespace {

class Unary : public Step {
 public:
  explicit Unary(Words& words) : in_(words.tensor()), out_(words.tensor()) {}

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 4096 / out_.channels(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    for (int64_t position = begin; position < end; ++position) {
      row(frame.read(in_) + position * in_.pitch * in_.bytes, frame.write(out_) + position * out_.pitch * out_.bytes,
          out_.channels());
    }
  }

 protected:
  virtual void row(const uint8_t* from, uint8_t* to, int64_t count) const = 0;

 private:
  Tensor in_, out_;
};

class Relu final : public Unary {
 public:
  using Unary::Unary;

 protected:
  void row(const uint8_t* from, uint8_t* to, int64_t count) const override {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<uint8_t>(std::max<int8_t>(static_cast<int8_t>(from[i]), 0));
    }
  }
};

class Table8 final : public Unary {
 public:
  explicit Table8(Words& words) : Unary(words), table_(words.array<uint8_t>()) {
    if (table_.size() != 256) throw BadPlan("a table of int8 has 256 entries");
  }

 protected:
  void row(const uint8_t* from, uint8_t* to, int64_t count) const override {
    for (int64_t i = 0; i < count; ++i) to[i] = table_[from[i] ^ 0x80U];
  }

 private:
  std::vector<uint8_t> table_;  // by x + 128
};

// Eight lines, of which the first is left of six tables of 64 entries and the last right of them.
class Table16 final : public Unary {
 public:
  explicit Table16(Words& words)
      : Unary(words),
        k_(words.array<int64_t>()),
        b_(words.array<int64_t>()),
        right_(words.array<int64_t>()),
        max_(words.array<int64_t>()),
        tables_(words.array<int64_t>()),
        rounds_(words.next() != 0) {
    if (k_.size() != 8 || b_.size() != 8 || right_.size() != 8 || max_.size() != 8 || tables_.size() != 6 * 64) {
      throw BadPlan("a segment table has 8 lines and 6 x 64 entries");
    }
  }

 protected:
  void row(const uint8_t* from, uint8_t* to, int64_t count) const override {
    const auto* x = reinterpret_cast<const int16_t*>(from);
    auto* y = reinterpret_cast<int16_t*>(to);
    for (int64_t i = 0; i < count; ++i) y[i] = static_cast<int16_t>(saturate(evaluate(x[i]), 16));
  }

 private:
  int64_t evaluate(int64_t x) const {
    std::size_t segment = 0;
    while (segment < 7 && x > max_[segment]) ++segment;
    const int64_t line = k_[segment] * x + b_[segment];
    const int64_t linear = (line + (rounds_ ? half(right_[segment]) : 0)) >> right_[segment];
    if (segment == 0 || segment == 7) return linear;
    const int64_t position = std::min(std::max<int64_t>(linear, 0), int64_t{63} << 8);
    const int64_t entry = std::min<int64_t>(position >> 8, 62);
    const int64_t* low = tables_.data() + (segment - 1) * 64 + entry;
    const int64_t rise = static_cast<int16_t>(low[1] - low[0]);
    return ((low[0] * 256) + rise * (position - (entry << 8)) + (rounds_ ? 128 : 0)) >> 8;
  }

  std::vector<int64_t> k_, b_, right_, max_, tables_;  // b is shifted already
  bool rounds_;
};

}  // namespace

std::unique_ptr<Step> make_relu(Words& words, Isa) { return std::make_unique<Relu>(words); }

std::unique_ptr<Step> make_table8(Words& words, Isa) { return std::make_unique<Table8>(words); }

std::unique_ptr<Step> make_table16(Words& words, Isa) { return std::make_unique<Table16>(words); }

}  // namespace bpu
