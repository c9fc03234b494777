// Bilinear resize of int8: (27) floors thrice, (28) rounds once. Positions and weights (25), (26) come as tables.
#include "step.h"

namespace bpu {
namespace {

// Of every output index along one axis: the two input indices, and the 8-bit weight of the second.
struct Samples {
  std::vector<int64_t> first, second, weight;

  static Samples read(Words& words) {
    Samples found;
    found.first = words.array<int64_t>();
    found.second = words.array<int64_t>();
    found.weight = words.array<int64_t>();
    return found;
  }
};

class Bilinear final : public Step {
 public:
  explicit Bilinear(Words& words)
      : in_(words.tensor()),
        out_(words.tensor()),
        rows_(Samples::read(words)),
        columns_(Samples::read(words)),
        legacy_(words.next() != 0) {}

  int64_t units() const override { return out_.positions(); }

  int64_t grain() const override { return 1 + 1024 / out_.channels(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    for (int64_t position = begin; position < end; ++position) {
      const auto column = static_cast<std::size_t>(position % out_.dims[2]);
      const auto line = static_cast<std::size_t>(position / out_.dims[2] % out_.dims[1]);
      const int64_t image = position / out_.dims[2] / out_.dims[1];
      const auto corner = [&](int64_t i, int64_t j) {
        const int64_t from = (image * in_.dims[1] + i) * in_.dims[2] + j;
        return reinterpret_cast<const int8_t*>(frame.read(in_)) + from * in_.pitch;
      };
      const int64_t top = rows_.first[line], bottom = rows_.second[line];
      const int64_t left = columns_.first[column], right = columns_.second[column];
      const int8_t* corners[] = {corner(top, left), corner(top, right), corner(bottom, left), corner(bottom, right)};
      blend(corners, static_cast<int32_t>(rows_.weight[line]), static_cast<int32_t>(columns_.weight[column]),
            reinterpret_cast<int8_t*>(frame.write(out_)) + position * out_.pitch);
    }
  }

 private:
  void blend(const int8_t* const* corners, int32_t fy, int32_t fx, int8_t* to) const {
    for (int64_t c = 0; c < out_.channels(); ++c) {
      const int32_t above = corners[0][c] * (256 - fx) + corners[1][c] * fx;
      const int32_t below = corners[2][c] * (256 - fx) + corners[3][c] * fx;
      const int32_t y = legacy_ ? ((above >> 8) * (256 - fy) + (below >> 8) * fy) >> 8
                                : (above * (256 - fy) + below * fy + (1 << 15)) >> 16;
      to[c] = static_cast<int8_t>(y);
    }
  }

  Tensor in_, out_;
  Samples rows_, columns_;
  bool legacy_;
};

}  // namespace

std::unique_ptr<Step> make_bilinear(Words& words, Isa) { return std::make_unique<Bilinear>(words); }

}  // namespace bpu
