// Convolution, also of linear layers, by the fastest way that is exact for its types and parameters: depthwise or as a
// product of matrices in 32 bits, otherwise (1) to (6) in 64 bits, one output position a unit.
#include "convolution.h"

#include <algorithm>
#include <array>

#include "depthwise_convolution.h"
#include "gemm_convolution.h"
#include "kernels_of.h"

namespace bpu {
namespace {

class DirectConvolution final : public Step {
 public:
  explicit DirectConvolution(Convolution given) : given_(std::move(given)) { arrange_weights(); }

  int64_t units() const override { return given_.positions(); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    std::vector<int64_t> acc(static_cast<std::size_t>(given_.out.channels()));
    std::vector<int32_t> x(static_cast<std::size_t>(given_.in.channels()));
    for (int64_t position = begin; position < end; ++position) {
      std::fill(acc.begin(), acc.end(), 0);
      accumulate(frame, position, x, acc);
      const int64_t target = given_.target(given_.place(position));
      given_.residual.add(frame, target, acc);
      for (std::size_t c = 0; c < acc.size(); ++c) acc[c] = given_.requantizer(acc[c], static_cast<int64_t>(c));
      narrow(acc.data(), given_.out.bytes, given_.out.channels(),
             frame.write(given_.out) + target * given_.out.pitch * given_.out.bytes);
    }
  }

 private:
  // From output channel, tap, input channel to tap, input channel, output channel of the group.
  void arrange_weights() {
    const int64_t taps = given_.taps(), inputs = given_.inputs_per_group(), outputs = given_.out.channels();
    arranged_.resize(given_.weight.size());
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t i = 0; i < inputs; ++i) {
          arranged_[static_cast<std::size_t>((tap * inputs + i) * outputs + o)] =
              given_.weight[static_cast<std::size_t>((o * taps + tap) * inputs + i)];
        }
      }
    }
    given_.drop_weight();
  }

  void accumulate(const Frame& frame, int64_t position, std::vector<int32_t>& x, std::vector<int64_t>& acc) const {
    const Tensor& in = given_.in;
    const std::array<int64_t, 4> at = given_.place(position);
    for (int64_t tap = 0; tap < given_.taps(); ++tap) {
      const int64_t source = given_.source(at, tap);
      if (source < 0) continue;
      widen(frame.read(in) + source * in.pitch * in.bytes, in.bytes, in.channels(), x.data());
      add_tap(arranged_.data() + tap * given_.inputs_per_group() * given_.out.channels(), x, acc);
    }
  }

  void add_tap(const int32_t* weight, const std::vector<int32_t>& x, std::vector<int64_t>& acc) const {
    const int64_t inputs = given_.inputs_per_group(), all = given_.out.channels(), outputs = all / given_.groups;
    for (int64_t group = 0; group < given_.groups; ++group) {
      for (int64_t i = 0; i < inputs; ++i) {
        const int64_t value = x[static_cast<std::size_t>(group * inputs + i)];
        const int32_t* row = weight + i * all + group * outputs;
        int64_t* sum = acc.data() + group * outputs;
        for (int64_t o = 0; o < outputs; ++o) sum[o] += value * row[o];
      }
    }
  }

  Convolution given_;
  std::vector<int32_t> arranged_;
};

}  // namespace

std::unique_ptr<Step> make_convolution(Words& words, Isa isa) {
  Convolution given = Convolution::read(words);
  // Those of AVX-512 write 8 and 16 bits.
  const Kernels& kernels = kernels_of(given.requantizer.wide ? std::min(isa, Isa::avx2) : isa);
  if (auto step = make_depthwise_convolution(given, kernels)) return step;
  if (auto step = make_gemm_convolution(given, kernels)) return step;
  return std::make_unique<DirectConvolution>(std::move(given));
}

}  // namespace bpu
