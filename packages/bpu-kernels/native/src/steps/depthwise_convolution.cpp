// A position takes as many rows of channels as the kernel has taps; rows in the padding are zeros.
#include "depthwise_convolution.h"

#include <algorithm>
#include <cstdlib>

#include "finish_table.h"

namespace bpu {
namespace {

class DepthwiseConvolution final : public Step {
 public:
  DepthwiseConvolution(const Convolution& given, const DepthwiseKernel& kernel, FinishTable finish)
      : given_(given), kernel_(kernel), finish_(std::move(finish)), pairs_((given.taps() + 1) / 2) {
    const int64_t channels = given_.out.channels(), panels = (channels + kPanel - 1) / kPanel;
    zeros_.resize(static_cast<std::size_t>(channels));
    weights_ = arranged<int16_t>(kPanel, 2, kernel_.order, panels);
    const DepthwiseLayout& layout = kernel_.positive;
    if (given_.positive && layout.block > 0) {
      positive_ = arranged<int8_t>(layout.block, layout.group, layout.order, channels / layout.block);
    }
    given_.drop_weight();
  }

  // A unit is a line of the output.
  int64_t units() const override { return given_.positions() / given_.places[3]; }

  int64_t grain() const override { return 1 + 16384 / (given_.places[3] * given_.out.channels() * given_.taps()); }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    thread_local std::vector<const int8_t*> taps;
    thread_local std::vector<int64_t> advances;
    taps.assign(static_cast<std::size_t>((pairs_ + 1) / 2 * 4), zeros_.data());
    advances.assign(taps.size(), 0);
    DepthwiseLine at{};
    at.taps = taps.data();
    at.advances = advances.data();
    at.pairs = pairs_;
    at.weights = weights_.data();
    at.positive_weights = positive_.empty() ? nullptr : positive_.data();
    at.finish = finish_.from(0);
    at.to.out_stride = given_.step[2] * given_.out.pitch * given_.out.bytes;
    at.to.out_bytes = given_.out.bytes;
    at.to.channels = given_.out.channels();
    at.to.residual_stride = given_.step[2] * given_.residual.tensor.pitch;
    for (int64_t unit = begin; unit < end; ++unit) run_line(frame, unit * given_.places[3], taps, advances, at);
  }

 private:
  // Weights as block of channels, group of taps, channel, tap of the group; 0 beyond the last tap or channel.
  template <typename T>
  AlignedVector<T> arranged(int64_t block, int64_t group, const int8_t* order, int64_t blocks) const {
    const int64_t taps = given_.taps(), groups = (taps + group - 1) / group;
    AlignedVector<T> found;
    found.reserve(static_cast<std::size_t>(blocks * groups * block * group));
    for (int64_t i = 0; i < blocks * groups * block; ++i) {
      const int64_t c = i / (groups * block) * block + order[i % block];
      for (int64_t tap = i / block % groups * group, last = tap + group; tap < last; ++tap) {
        const bool exists = c < given_.out.channels() && tap < taps;
        found.push_back(exists ? given_.weight[static_cast<std::size_t>(c * taps + tap)] : T{0});
      }
    }
    return found;
  }

  // Columns whose window lies inside the line go together: there every tap just moves on.
  void run_line(const Frame& frame, int64_t first, std::vector<const int8_t*>& taps, std::vector<int64_t>& advances,
                DepthwiseLine& at) const {
    const auto* from = reinterpret_cast<const int8_t*>(frame.read(given_.in));
    const std::array<int64_t, 4> place = given_.place(first);
    const int64_t line = given_.target(place);
    const int64_t stride = given_.stride[2], pad = given_.pad[2], width = given_.in.dims[3], columns = given_.places[3];
    const int64_t reach = (given_.kernel[2] - 1) * given_.dilation[2];
    const int64_t inside = std::min(std::max<int64_t>((pad + stride - 1) / stride, 0), columns);
    const int64_t outside = std::max(inside, std::min((width - 1 - reach + pad) / stride + 1, columns));
    for (int64_t x = 0; x < columns; x += at.positions) {
      find_taps(from, place, x * stride - pad, taps);
      at.positions = x == inside && outside > inside ? outside - inside : 1;
      for (std::size_t tap = 0; tap < taps.size(); ++tap) {
        advances[tap] = taps[tap] == zeros_.data() ? 0 : stride * given_.in.pitch;
      }
      const int64_t target = line + x * given_.step[2];
      at.to.out = frame.write(given_.out) + target * given_.out.pitch * given_.out.bytes;
      if (given_.residual.given) {
        at.to.residual =
            reinterpret_cast<const int8_t*>(frame.read(given_.residual.tensor)) + target * given_.residual.tensor.pitch;
      }
      kernel_.run(at);
    }
  }

  void find_taps(const int8_t* from, const std::array<int64_t, 4>& place, int64_t left,
                 std::vector<const int8_t*>& taps) const {
    std::size_t tap = 0;
    for (int64_t line = 0; line < given_.kernel[0] * given_.kernel[1]; ++line) {
      const int64_t start = given_.line(place, line);
      for (int64_t j = 0; j < given_.kernel[2]; ++j, ++tap) {
        const int64_t column = left + j * given_.dilation[2];
        const bool inside = start >= 0 && column >= 0 && column < given_.in.dims[3];
        taps[tap] = inside ? from + (start + column) * given_.in.pitch : zeros_.data();
      }
    }
    for (; tap < taps.size(); ++tap) taps[tap] = zeros_.data();
  }

  Convolution given_;
  DepthwiseKernel kernel_;
  FinishTable finish_;
  int64_t pairs_;
  std::vector<int8_t> zeros_;
  AlignedVector<int16_t> weights_;
  AlignedVector<int8_t> positive_;  // weights again, for kernels that make use of inputs without negative values
};

}  // namespace

std::unique_ptr<Step> make_depthwise_convolution(const Convolution& given, const Kernels& kernels) {
  const int64_t channels = given.out.channels();
  if (given.in.bytes != 1 || given.groups != channels || given.inputs_per_group() != 1) return nullptr;
  std::vector<int64_t> reach(static_cast<std::size_t>(channels)), correction(reach.size());
  for (std::size_t i = 0; i < given.weight.size(); ++i) {
    reach[i / static_cast<std::size_t>(given.taps())] += 128 * std::abs(given.weight[i]);
  }
  auto finish = FinishTable::make(given.requantizer, given.residual, reach, correction, kernels.depthwise.order);
  if (!finish) return nullptr;
  return std::make_unique<DepthwiseConvolution>(given, kernels.depthwise, std::move(*finish));
}

}  // namespace bpu
