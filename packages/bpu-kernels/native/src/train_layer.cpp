// One call for what follows a layer's accumulators under training: range, scale, the board's parameters, output.
#include <algorithm>
#include <cmath>
#include <vector>

#include "choose_parameters.h"
#include "engine.h"
#include "follow_range.h"
#include "layer_pass.h"
#include "without_throwing.h"

namespace bpu {
namespace {

constexpr int32_t kNotFinite = 2;

// Returns whether the range was finite, and taken.
bool observe(const BpuLayer& layer, const BpuObserved& observed, const float* accumulators, int threads) {
  float found[2];
  layer_range(layer, accumulators, found, threads);
  if (!is_finite(found[0]) || !is_finite(found[1])) return false;
  const Followed before{*observed.min, *observed.max, *observed.scale};
  const Followed after = follow_range(before, found[0], found[1], observed.constant, observed.steps);
  *observed.min = after.min;
  *observed.max = after.max;
  *observed.scale = after.scale;
  return true;
}

RealScales real_scales(const BpuTraining& t, float out) {
  return {t.x_scale, out, t.residual_scale, t.weight_scale, t.bias, t.sums};
}

// The real values, in float32, that round into the range of the integers.
void pass_between(BpuLayer& layer, const BpuTraining& t) {
  layer.pass_low = (static_cast<float>(t.quant_min) - 0.5f) * layer.value_scale;
  layer.pass_high = (static_cast<float>(t.quant_max) + 0.5f) * layer.value_scale;
}

void limit_steps(BpuLayer& layer) {
  layer.low = layer.activation == 0 ? -128 : 0;
  layer.high = 127;
  if (layer.activation == 2) {
    const double top = std::nearbyint(6.0 / static_cast<double>(layer.value_scale));
    layer.high = static_cast<int32_t>(std::min(127.0, top));
  }
}

}  // namespace
}  // namespace bpu

int32_t bpu_train_layer(const BpuTraining* training, const float* accumulators, int8_t* steps, float* values,
                        uint8_t* mask, int32_t threads) {
  int32_t status = 0;
  const int32_t failed = bpu::without_throwing([&] {
    const BpuTraining& t = *training;
    BpuLayer layer = t.layer;
    std::vector<float> unit, bias;
    for (int64_t c = 0; c < layer.channels; ++c) {
      unit.push_back(static_cast<float>(static_cast<double>(t.x_scale) * t.weight_scale[c]));
      bias.push_back(t.bias == nullptr ? 0.0f : t.bias[c]);
    }
    layer.unit = unit.data();
    layer.bias = bias.data();
    if (t.observes != 0 && !bpu::observe(layer, t.output, accumulators, threads)) {
      status = bpu::kNotFinite;
      return;
    }
    layer.value_scale = *t.output.scale;
    bpu::limit_steps(layer);
    bpu::pass_between(layer, t);
    const bpu::RealScales real = bpu::real_scales(t, layer.value_scale);
    const bpu::ChosenParameters chosen = bpu::choose_parameters(t.march, real, layer.channels);
    chosen.give_to(layer);
    bpu::layer_output(layer, accumulators, steps, values, mask, threads);
  });
  return failed != 0 ? failed : status;
}

int32_t bpu_scale_too_small(const BpuTraining* training) {
  return bpu::is_scale_too_small(training->march, bpu::real_scales(*training, 1.0f), training->layer.channels) ? 1 : 0;
}
