// Arranges finishing parameters per panel, after proving that 32-bit sums suffice.
#include "finish_table.h"

#include <algorithm>
#include <cstdlib>

namespace bpu {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;

// Right shifts with which the short form of kernels.h is exact.
bool is_short_shift(int32_t right) { return right >= 18 && right <= 31; }

// The largest absolute value of a residual's term (6), or more than fits if its term could wrap.
int64_t residual_reach(const Residual& residual, std::size_t c) {
  if (!residual.given) return 0;
  const int64_t shift = residual.shift[c];
  if (shift > 30) return residual.scale[c] == 0 ? 0 : kLimit;
  return shift_left(int64_t{128} * residual.scale[c], shift) + 1;  // floors of negative numbers go one further
}

bool fits(const Requantizer& by, const Residual& residual, const std::vector<int64_t>& reach) {
  if (by.wide != (by.bits > 16) || !by.saturates_between || (residual.given && residual.tensor.bytes != 1)) return false;
  for (std::size_t c = 0; c < reach.size(); ++c) {
    const int64_t before = std::llabs(by.before[c]), after = by.wide && by.rounds ? half(by.right[c]) : 0;
    if (before >= kLimit || reach[c] + before + residual_reach(residual, c) + after >= kLimit) return false;
  }
  return true;
}

}  // namespace

std::optional<FinishTable> FinishTable::make(const Requantizer& by, const Residual& residual,
                                             const std::vector<int64_t>& reach, const std::vector<int64_t>& correction,
                                             const int8_t* order) {
  if (!fits(by, residual, reach)) return std::nullopt;
  const std::size_t channels = reach.size(), panel = kPanel, padded = (channels + panel - 1) / panel * panel;
  FinishTable table;
  for (auto* each : {&table.bias_, &table.accu_, &table.half_, &table.right_, &table.residual_scale_,
                     &table.residual_left_, &table.residual_right_}) {
    each->resize(padded);
  }
  for (auto* each : {&table.scale_, &table.nudge_, &table.factor_}) each->resize(padded);
  table.is_short_.assign(padded / panel, 1);
  table.relu_ = by.relu;
  for (std::size_t place = 0; place < padded; ++place) {
    const std::size_t c = place / panel * panel + static_cast<std::size_t>(order[place % panel]);
    if (c >= channels) continue;
    const int64_t right = by.right[c], rounding = by.rounds ? half(right) : 0;
    table.bias_[place] = static_cast<int32_t>(wrap32(by.before[c] + correction[c]));
    table.accu_[place] = by.accu[c];
    table.half_[place] = static_cast<int32_t>(rounding);
    table.right_[place] = by.right[c];
    table.scale_[c] = static_cast<int16_t>(by.scale[c]);
    if (is_short_shift(by.right[c])) {
      table.nudge_[c] = static_cast<int16_t>(rounding >> 16);
      table.factor_[c] = static_cast<int16_t>(int64_t{1} << (32 - right));
    } else {
      table.is_short_[c / panel] = 0;
    }
    if (residual.given) {
      table.residual_scale_[place] = residual.scale[c];
      table.residual_left_[place] = std::max(residual.shift[c], 0);
      table.residual_right_[place] = std::min(std::max(-residual.shift[c], 0), 31);
    }
  }
  return table;
}

Finish FinishTable::from(int64_t panel) const {
  const int64_t c = panel * kPanel;
  return {bias_.data() + c,           accu_.data() + c,          scale_.data() + c,
          is_short_.data() + panel,   nudge_.data() + c,         factor_.data() + c,
          half_.data() + c,           right_.data() + c,         residual_scale_.data() + c,
          residual_left_.data() + c,  residual_right_.data() + c, relu_};
}

}  // namespace bpu
