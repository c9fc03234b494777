// Gather: every operator that moves integers. Output element (i, j, ...) is input element first[i] + second[j] + ...,
// so slice, transpose, pad, concatenation and nearest resize differ in their tables only.
#include <cstring>

#include "step.h"

namespace bpu {
namespace {

struct Axis {
  std::vector<int64_t> source;  // offset in the input, in elements; below 0: outside, filled
  int64_t stride;               // of the output, in elements
};

class Gather final : public Step {
 public:
  explicit Gather(Words& words) : in_(words.tensor()), out_(words.tensor()) {
    const std::vector<int64_t> strides = words.list();
    fill_ = words.next();
    if (strides.empty() || strides.size() != out_.dims.size()) throw BadPlan("a gather has a stride per axis");
    for (std::size_t axis = 0; axis < strides.size(); ++axis) {
      axes_.push_back({words.array<int64_t>(), strides[axis]});
      if (axes_.back().source.size() != static_cast<std::size_t>(out_.dims[axis])) throw BadPlan("a gather of other size");
    }
    const auto& last = axes_.back().source;
    dense_ = last.front() >= 0;
    for (std::size_t i = 1; i < last.size(); ++i) dense_ = dense_ && last[i] == last[i - 1] + 1;
  }

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 4096 / out_.channels(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const uint8_t* from = frame.read(in_);
    uint8_t* to = frame.write(out_);
    if (out_.bytes == 1) return typed<int8_t>(from, to, begin, end);
    if (out_.bytes == 2) return typed<int16_t>(from, to, begin, end);
    typed<int32_t>(from, to, begin, end);
  }

 private:
  template <typename T>
  void typed(const uint8_t* from, uint8_t* to, int64_t begin, int64_t end) const {
    for (int64_t unit = begin; unit < end; ++unit) {
      int64_t rest = unit, source = 0, target = 0;
      bool inside = true;
      for (std::size_t axis = axes_.size() - 1; axis-- > 0;) {
        const auto size = static_cast<int64_t>(axes_[axis].source.size());
        const int64_t at = rest % size, offset = axes_[axis].source[static_cast<std::size_t>(at)];
        rest /= size;
        inside = inside && offset >= 0;
        source += offset;
        target += at * axes_[axis].stride;
      }
      row(reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to) + target, inside, source);
    }
  }

  template <typename T>
  void row(const T* from, T* to, bool inside, int64_t source) const {
    const auto& last = axes_.back().source;
    if (inside && dense_) {
      std::memcpy(to, from + source + last.front(), last.size() * sizeof(T));
      return;
    }
    for (std::size_t i = 0; i < last.size(); ++i) {
      to[i] = inside && last[i] >= 0 ? from[source + last[i]] : static_cast<T>(fill_);
    }
  }

  Tensor in_, out_;
  int64_t fill_;
  std::vector<Axis> axes_;
  bool dense_ = false;
};

}  // namespace

std::unique_ptr<Step> make_gather(Words& words, Isa) { return std::make_unique<Gather>(words); }

}  // namespace bpu
