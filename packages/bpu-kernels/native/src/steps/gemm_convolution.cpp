// The product's left operand is gathered block by block (a position's window is a row), unless the input is that operand.
#include "gemm_convolution.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "aligned.h"
#include "finish_table.h"

namespace bpu {
namespace {

// Bytes of a block of the left operand: it stays in the second-level cache while all panels pass by.
constexpr int64_t kBlockBytes = 96 * 1024;
constexpr int64_t kMostRows = 256;
constexpr int64_t kLeastRows = 16;
// Units that a layer should have at least, for several threads to share, and the fewest panels of one.
constexpr int64_t kUnits = 16;
constexpr int64_t kLeastPanels = 8;
// So many panels make units enough, so that a small map is one block, and its weights pass through the caches once.
constexpr int64_t kManyPanels = 4 * kLeastPanels;

// Lines of a window of at most so many bytes are copied in chunks of a vector.
constexpr int64_t kShortLine = 64;
constexpr int64_t kChunk = 16;

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// The right operand of one group: weights arranged in panels, and what finishes its columns.
struct Columns {
  AlignedVector<uint8_t> weights;
  std::vector<int32_t> visits, paired;
  FinishTable finish;
};

class GemmConvolution final : public Step {
 public:
  GemmConvolution(const Convolution& given, const GemmKernel& kernel, std::vector<Columns> groups)
      : given_(given), kernel_(kernel), groups_(std::move(groups)) {
    given_.drop_weight();
    depth_ = given_.taps() * given_.inputs_per_group();
    stride_ = divide_up(depth_, kernel_.step) * kernel_.step * element();
    panels_ = divide_up(given_.out.channels() / given_.groups, kPanel);
    is_pointwise_ = is_pointwise();
    // Positions of the input are rows of the left operand as they lie.
    is_direct_ = is_pointwise_ && !kernel_.offset && given_.in.bytes == element() && depth_ % kernel_.step == 0;
    has_short_lines_ = given_.kernel[2] > 1 && given_.kernel[2] * given_.in.channels() * element() <= kShortLine &&
                       given_.dilation[2] == 1 && given_.groups == 1 && given_.in.pitch == given_.in.channels();
    rows_ = std::min(std::max(kBlockBytes / stride_ / kLeastRows * kLeastRows, kLeastRows), kMostRows);
    const int64_t least = panels_ >= kManyPanels ? 4 * kLeastRows : 2 * kLeastRows;
    rows_ = std::min(rows_, std::max(divide_up(given_.positions(), kUnits * kLeastRows) * kLeastRows, least));
    row_blocks_ = divide_up(given_.positions(), rows_);
    column_blocks_ = std::max<int64_t>(std::min(kUnits / row_blocks_, panels_ / kLeastPanels), 1);
  }

  int64_t units() const override { return row_blocks_ * column_blocks_; }

  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    thread_local AlignedVector<uint8_t> block;
    for (int64_t unit = begin; unit < end;) {
      const int64_t row = unit / column_blocks_ * rows_, rows = std::min(rows_, given_.positions() - row);
      const int64_t last = std::min(end, (unit / column_blocks_ + 1) * column_blocks_);
      const int64_t first_panel = unit % column_blocks_ * panels_ / column_blocks_;
      const int64_t last_panel = ((last - 1) % column_blocks_ + 1) * panels_ / column_blocks_;
      for (int64_t group = 0; group < given_.groups; ++group) {
        Product product{};
        product.rows = rows;
        left_operand(frame, group, row, block, product);
        multiply(frame, group, row, first_panel, last_panel, product);
      }
      unit = last;
    }
  }

 private:
  int64_t element() const { return kernel_.wide ? 2 : 1; }

  bool is_pointwise() const {
    const auto all = [](const std::vector<int64_t>& values, int64_t value) {
      return std::all_of(values.begin(), values.end(), [&](int64_t each) { return each == value; });
    };
    const bool same = std::equal(given_.places.begin(), given_.places.end(), given_.in.dims.begin());
    return all(given_.kernel, 1) && all(given_.stride, 1) && all(given_.pad, 0) && same;
  }

  void left_operand(const Frame& frame, int64_t group, int64_t row, AlignedVector<uint8_t>& block, Product& product) const {
    const int64_t channel = group * given_.inputs_per_group();
    if (is_direct_) {
      product.a = frame.read(given_.in) + (row * given_.in.pitch + channel) * given_.in.bytes;
      product.a_stride = given_.in.pitch * given_.in.bytes;
      return;
    }
    block.resize(std::max(block.size(), static_cast<std::size_t>(rows_ * stride_ + kChunk)));
    product.a = block.data();
    product.a_stride = stride_;
    if (is_pointwise_ && given_.in.pitch == depth_ && stride_ == depth_ * element()) {
      kernel_.convert(frame.read(given_.in) + row * depth_ * given_.in.bytes, product.rows * depth_, block.data());
      return;
    }
    std::array<int64_t, 4> at = given_.place(row);
    for (int64_t r = 0; r < product.rows;) {
      const int64_t count = has_short_lines_ ? std::min(given_.places[3] - at[3], product.rows - r) : 1;
      if (has_short_lines_) {
        gather_short(frame, at, count, block.data() + r * stride_);
      } else {
        gather(frame, at, channel, block.data() + r * stride_);
      }
      r += count;
      at[3] += count - 1;
      for (std::size_t axis = 4; axis-- > 0 && ++at[axis] == given_.places[axis];) at[axis] = 0;
    }
  }

  // Copies the windows of positions along a line, where lines of a window are so short that converting each by itself
  // takes longer than converting lines of the input first. Every copy is of whole chunks: what it writes behind its end
  // the next one writes over, or meets weights of 0.
  void gather_short(const Frame& frame, const std::array<int64_t, 4>& at, int64_t count, uint8_t* to) const {
    thread_local std::vector<uint8_t> converted;
    const Tensor& in = given_.in;
    const int64_t lines = given_.kernel[0] * given_.kernel[1], position = given_.in.channels() * element();
    const int64_t columns = (count - 1) * given_.stride[2] + given_.kernel[2], line_bytes = columns * position;
    converted.resize(std::max(converted.size(), static_cast<std::size_t>(lines * line_bytes + kChunk)));
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t start = given_.line(at, line);
      if (start < 0) {
        pad(columns * in.channels(), converted.data() + line * line_bytes);
      } else {
        gather_line(frame.read(in) + start * in.pitch * in.bytes, at[3] * given_.stride[2] - given_.pad[2], columns,
                    converted.data() + line * line_bytes);
      }
    }
    const int64_t width = given_.kernel[2] * position;
    for (int64_t x = 0; x < count; ++x, to += stride_) {
      const uint8_t* source = converted.data() + x * given_.stride[2] * position;
      for (int64_t line = 0; line < lines; ++line, source += line_bytes) {
        for (int64_t byte = 0; byte < width; byte += kChunk) {
          std::memcpy(to + line * width + byte, source + byte, static_cast<std::size_t>(kChunk));
        }
      }
    }
  }

  // Copies the window of a position; what lies in the padding is what the kernel takes for 0.
  void gather(const Frame& frame, const std::array<int64_t, 4>& at, int64_t channel, uint8_t* to) const {
    const Tensor& in = given_.in;
    const int64_t channels = given_.inputs_per_group(), width = given_.kernel[2], line = width * channels * element();
    const uint8_t* image = frame.read(in) + (at[0] * in.dims[1] * in.dims[2] * in.dims[3] * in.pitch + channel) * in.bytes;
    for (int64_t i = 0; i < given_.kernel[0]; ++i) {
      const int64_t plane = at[1] * given_.stride[0] - given_.pad[0] + i * given_.dilation[0];
      for (int64_t j = 0; j < given_.kernel[1]; ++j, to += line) {
        const int64_t row = at[2] * given_.stride[1] - given_.pad[1] + j * given_.dilation[1];
        if (plane < 0 || plane >= in.dims[1] || row < 0 || row >= in.dims[2]) {
          pad(width * channels, to);
        } else {
          gather_line(image + (plane * in.dims[2] + row) * in.dims[3] * in.pitch * in.bytes,
                      at[3] * given_.stride[2] - given_.pad[2], given_.kernel[2], to);
        }
      }
    }
    pad(stride_ / element() - depth_, to);
  }

  // Copies so many columns of a line from column `left` on; `from` is the line's column 0.
  void gather_line(const uint8_t* from, int64_t left, int64_t width, uint8_t* to) const {
    const int64_t channels = given_.inputs_per_group(), step = given_.dilation[2];
    const int64_t column_bytes = given_.in.pitch * given_.in.bytes, columns = given_.in.dims[3];
    if (step == 1 && given_.in.pitch == channels) {
      const int64_t before = std::min(std::max<int64_t>(-left, 0), width);
      const int64_t after = std::min(std::max<int64_t>(left + width - columns, 0), width - before);
      pad(before * channels, to);
      kernel_.convert(from + (left + before) * column_bytes, (width - before - after) * channels,
                      to + before * channels * element());
      pad(after * channels, to + (width - after) * channels * element());
      return;
    }
    for (int64_t j = 0; j < width; ++j, to += channels * element()) {
      const int64_t column = left + j * step;
      if (column < 0 || column >= columns) {
        pad(channels, to);
      } else {
        kernel_.convert(from + column * column_bytes, channels, to);
      }
    }
  }

  void pad(int64_t count, uint8_t* to) const {
    if (count > 0) std::memset(to, kernel_.offset ? 0x80 : 0, static_cast<std::size_t>(count * element()));
  }

  void multiply(const Frame& frame, int64_t group, int64_t row, int64_t first, int64_t last, Product& product) const {
    const Columns& columns = groups_[static_cast<std::size_t>(group)];
    const Tensor &out = given_.out, &residual = given_.residual.tensor;
    const int64_t of_group = out.channels() / given_.groups, channel = group * of_group + first * kPanel;
    product.panel_bytes = stride_ * kPanel;
    product.weights = columns.weights.data() + first * product.panel_bytes;
    product.panels = last - first;
    product.depth = stride_ / element() / kernel_.step;
    product.visits = columns.visits.data() + first * product.depth;
    product.paired = columns.paired.data() + first;
    product.finish = columns.finish.from(first);
    product.to.out_stride = given_.step[2] * out.pitch * out.bytes;
    product.to.out_bytes = out.bytes;
    product.to.channels = std::min(of_group - first * kPanel, product.panels * kPanel);
    product.to.residual_stride = given_.step[2] * residual.pitch;
    // Rows of a lattice are equally far apart along a line only.
    for (const int64_t end = row + product.rows; row < end; row += product.rows) {
      const std::array<int64_t, 4> at = given_.place(row);
      product.rows = given_.is_whole() ? end - row : std::min(end - row, given_.places[3] - at[3]);
      const int64_t target = given_.target(at);
      product.to.out = frame.write(out) + (target * out.pitch + channel) * out.bytes;
      if (given_.residual.given) {
        product.to.residual = reinterpret_cast<const int8_t*>(frame.read(residual)) + target * residual.pitch + channel;
      }
      kernel_.multiply(product);
      product.a += product.rows * product.a_stride;
    }
  }

  Convolution given_;
  GemmKernel kernel_;
  std::vector<Columns> groups_;
  int64_t depth_, stride_, panels_, rows_, row_blocks_, column_blocks_;
  bool is_pointwise_, is_direct_, has_short_lines_;
};

// The weights of one output channel, in the order of the left operand's elements.
const int8_t* weights_of(const Convolution& given, int64_t channel) {
  return given.weight.data() + channel * given.taps() * given.inputs_per_group();
}

// Whether 127 times the weights of one sign, over the two pairs of a step that are added in 16 bits, fits them.
bool is_paired(const int8_t* weights, int64_t depth, int64_t step) {
  for (int64_t k = step * 8; k < step * 8 + 4; k += 2) {
    int32_t above = 0, below = 0;
    for (const int64_t at : {k, k + 1, k + 4, k + 5}) {
      if (at < depth) (weights[at] > 0 ? above : below) += weights[at];
    }
    if (above * 127 > 32767 || below * 127 < -32768) return false;
  }
  return true;
}

Requantizer part_of(const Requantizer& by, int64_t begin, int64_t end) {
  Requantizer part = by;
  part.before = {by.before.begin() + begin, by.before.begin() + end};
  part.accu = {by.accu.begin() + begin, by.accu.begin() + end};
  part.scale = {by.scale.begin() + begin, by.scale.begin() + end};
  part.right = {by.right.begin() + begin, by.right.begin() + end};
  return part;
}

Residual part_of(const Residual& residual, int64_t begin, int64_t end) {
  Residual part = residual;
  if (residual.given) {
    part.scale = {residual.scale.begin() + begin, residual.scale.begin() + end};
    part.shift = {residual.shift.begin() + begin, residual.shift.begin() + end};
  }
  return part;
}

// Writes the weights of one step of a panel: quad by quad, in each place by place. Returns where the next step goes.
uint8_t* arrange_step(const int8_t* const* rows, int64_t depth, int64_t step, const GemmKernel& kernel, uint8_t* to) {
  for (int64_t quad = step * kernel.step; quad < (step + 1) * kernel.step; quad += kernel.quad) {
    for (int64_t place = 0; place < kPanel; ++place) {
      for (int64_t k = quad; k < quad + kernel.quad; ++k) {
        const int8_t byte = rows[place] != nullptr && k < depth ? rows[place][k] : int8_t{0};
        const int16_t value = byte;
        std::memcpy(to, kernel.wide ? static_cast<const void*>(&value) : static_cast<const void*>(&byte), kernel.wide ? 2 : 1);
        to += kernel.wide ? 2 : 1;
      }
    }
  }
  return to;
}

std::optional<Columns> make_columns(const Convolution& given, const GemmKernel& kernel, int64_t group) {
  const int64_t count = given.out.channels() / given.groups, begin = group * count;
  const int64_t depth = given.taps() * given.inputs_per_group();
  std::vector<int64_t> reach, correction;
  for (int64_t c = begin; c < begin + count; ++c) {
    int64_t sum = 0, absolute = 0;
    for (int64_t k = 0; k < depth; ++k) {
      sum += weights_of(given, c)[k];
      absolute += std::abs(weights_of(given, c)[k]);
    }
    reach.push_back(absolute << (8 * given.in.bytes - 1));
    correction.push_back(kernel.offset ? -128 * sum : 0);
  }
  auto finish = FinishTable::make(part_of(given.requantizer, begin, begin + count),
                                  part_of(given.residual, begin, begin + count), reach, correction, kernel.order);
  if (!finish) return std::nullopt;
  const int64_t panels = divide_up(count, kPanel), steps = divide_up(depth, kernel.step);
  const int64_t panel_bytes = steps * kernel.step * kPanel * (kernel.wide ? 2 : 1);
  Columns columns{{}, {}, {}, std::move(*finish)};
  columns.weights.resize(static_cast<std::size_t>(panels * panel_bytes));
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int8_t* rows[kPanel] = {};  // the weights at every place of the panel; null beyond the last channel
    for (int64_t place = 0; place < kPanel; ++place) {
      const int64_t c = panel * kPanel + kernel.order[place];
      if (c < count) rows[place] = weights_of(given, begin + c);
    }
    std::vector<int64_t> order;
    for (int64_t step = 0; step < steps; ++step) order.push_back(step);
    auto middle = order.begin();
    if (kernel.step == 8) {
      middle = std::stable_partition(order.begin(), order.end(), [&](int64_t step) {
        return std::all_of(rows, rows + kPanel, [&](const int8_t* row) { return !row || is_paired(row, depth, step); });
      });
    }
    columns.paired.push_back(static_cast<int32_t>(middle - order.begin()));
    uint8_t* to = columns.weights.data() + panel * panel_bytes;
    for (const int64_t step : order) {
      columns.visits.push_back(static_cast<int32_t>(step * kernel.step));
      to = arrange_step(rows, depth, step, kernel, to);
    }
  }
  return columns;
}

}  // namespace

std::unique_ptr<Step> make_gemm_convolution(const Convolution& given, const Kernels& kernels) {
  if (given.in.bytes > 2) return nullptr;
  const GemmKernel& kernel = given.in.bytes == 2 ? kernels.int16 : given.positive ? kernels.positive : kernels.int8;
  std::vector<Columns> groups;
  for (int64_t group = 0; group < given.groups; ++group) {
    auto columns = make_columns(given, kernel, group);
    if (!columns) return nullptr;
    groups.push_back(std::move(*columns));
  }
  return std::make_unique<GemmConvolution>(given, kernel, std::move(groups));
}

}  // namespace bpu
