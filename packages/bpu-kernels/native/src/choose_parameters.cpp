// The rules of bpu_kernels/multiplier.py, number by number: every operation is exact or rounded once, so both agree.
#include "choose_parameters.h"

#include <algorithm>
#include <cmath>

#include "fixed_point.h"

namespace bpu {
namespace {

constexpr double kSmallest = 0x1p-60;
constexpr double kMost15Bits = 32767.0;

// NaN becomes the lower bound.
template <typename T>
T clip(T value, T low, T high) {
  if (!(value > low)) return low;
  return value < high ? value : high;
}

int exponent_of(double value, double* fraction) {
  int exponent = 0;
  *fraction = std::frexp(value, &exponent);
  return exponent;
}

// The e with which a positive number is nearest to m * 2^e for an integer m of 15 bits.
int fifteen_bit_exponent(double value) {
  double fraction = 0.0;
  const int exponent = exponent_of(std::max(value, kSmallest), &fraction);
  return exponent - 15 + (std::nearbyint(std::ldexp(fraction, 15)) == 32768.0 ? 1 : 0);
}

int64_t fifteen_bits(double value, int exponent) {
  return static_cast<int64_t>(std::nearbyint(clip(std::ldexp(value, -exponent), 0.0, kMost15Bits)));
}

struct Multiplier {
  int accu;
  int64_t scale;
  int right;
};

Multiplier at_shift(double multiplier, int accu, const BpuMarch& march) {
  const double shifted = std::ldexp(multiplier, accu);
  const int right = clip(-fifteen_bit_exponent(shifted), 0, march.most_right_shift);
  return {accu, fifteen_bits(shifted, -right), right};
}

// Equation (1) from the saturated middle on, to int8.
int64_t second_half(int64_t middle, const Multiplier& by, bool rounds) {
  return saturate((middle * by.scale + (rounds ? half(by.right) : 0)) >> by.right, 8);
}

bool saturates_first(const Multiplier& by, double bound, bool rounds) {
  const int64_t unit = int64_t{1} << by.accu;
  return bound + static_cast<double>(unit >> 1) > static_cast<double>(32767 * unit) &&
         (second_half(32767, by, rounds) < 127 || second_half(-32768, by, rounds) > -128);
}

Multiplier choose_multiplier(double multiplier, double bound, const BpuMarch& march) {
  const bool rounds = march.rounds != 0;
  multiplier = std::max(multiplier, kSmallest);
  if (!rounds) bound = bound + 0.5 / multiplier;
  const double reach = bound * multiplier < 126.5 ? bound : 126.5 / multiplier;
  double fraction = 0.0;
  const int exponent = exponent_of(reach / 32766.5, &fraction);
  const int accu = clip(exponent - (fraction <= 0.5 ? 1 : 0), 0, march.most_accu_shift);
  const Multiplier first = at_shift(multiplier, accu, march);
  if (!saturates_first(first, bound, rounds)) return first;
  return at_shift(multiplier, std::min(accu + 1, march.most_accu_shift), march);
}

// Equation (11): half an output step in accumulator units.
int64_t compensation(const Multiplier& by) {
  if (by.scale == 0) return 0;
  return ((int64_t{1} << (by.accu + by.right)) + by.scale) / (2 * by.scale);
}

// What is added to an accumulator: equation (5), and half of what the floors drop.
int64_t choose_bias(double bias, const Multiplier& by, const BpuMarch& march) {
  auto whole = static_cast<int64_t>(clip(std::nearbyint(bias), -0x1p31, 0x1p31 - 1.0));
  whole += half(by.accu);
  if (march.rounds == 0) whole += std::min<int64_t>(compensation(by), int64_t{1} << 29);
  if (march.bias_bits == 32) return saturate(whole, 32);
  int length = 0;
  std::frexp(static_cast<double>(whole < 0 ? ~whole : whole), &length);
  const int shift = clip(length - (march.bias_bits - 1), 0, march.most_bias_shift);
  return wrap32(shift_left(saturate(whole >> shift, march.bias_bits), shift));
}

}  // namespace

ChosenParameters choose_parameters(const BpuMarch& march, const RealScales& real, int64_t channels) {
  ChosenParameters found;
  for (int64_t c = 0; c < channels; ++c) {
    const double unit = static_cast<double>(real.x) * real.weight[c];
    const double bias = real.bias == nullptr ? 0.0 : static_cast<double>(real.bias[c]) / unit;
    double bound = real.sums[c] * 128.0 + std::fabs(bias) + 1.0;
    if (real.residual > 0.0f) {
      const double factor = static_cast<double>(real.residual) / unit;
      bound = bound + factor * 128.0;
      const int shift = clip(fifteen_bit_exponent(factor), march.least_residual_shift, march.most_residual_shift);
      found.residual_scale.push_back(static_cast<int32_t>(fifteen_bits(factor, shift)));
      found.residual_left.push_back(clip(shift, 0, 31));
      found.residual_right.push_back(clip(-shift, 0, 31));
    }
    const Multiplier by = choose_multiplier(unit / static_cast<double>(real.out), bound, march);
    found.before.push_back(static_cast<int32_t>(choose_bias(bias, by, march)));
    found.accu.push_back(by.accu);
    found.scale.push_back(static_cast<int32_t>(by.scale));
    found.rounding.push_back(march.rounds == 0 ? 0 : static_cast<int32_t>(half(by.right)));
    found.right.push_back(by.right);
  }
  return found;
}

void ChosenParameters::give_to(BpuLayer& layer) const {
  layer.before = before.data();
  layer.accu = accu.data();
  layer.scale = scale.data();
  layer.rounding = rounding.data();
  layer.right = right.data();
  layer.residual_scale = residual_scale.data();
  layer.residual_left = residual_left.data();
  layer.residual_right = residual_right.data();
}

bool is_scale_too_small(const BpuMarch& march, const RealScales& real, int64_t channels) {
  const auto x = static_cast<double>(real.x);
  const double factor =
      march.least_residual_shift < 0 ? 0x1p22 : std::ldexp(kMost15Bits, march.most_residual_shift);
  double common = kSmallest;
  if (real.residual > 0.0f) common = std::max(common, static_cast<double>(real.residual) / (x * factor));
  for (int64_t c = 0; c < channels; ++c) {
    const double bias = real.bias == nullptr ? 0.0 : std::fabs(static_cast<double>(real.bias[c])) / (x * 0x1p29);
    const double least = std::max(common, bias);
    if (real.weight[c] < least) return true;
  }
  return false;
}

}  // namespace bpu
