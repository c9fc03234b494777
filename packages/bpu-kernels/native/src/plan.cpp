// A plan: the steps of a Program in order, and the functions of the C interface.
#include <algorithm>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <vector>

#include "engine.h"
#include "isa.h"
#include "step.h"
#include "threads.h"
#include "without_throwing.h"
#include "words.h"

struct BpuPlan {
  std::vector<std::unique_ptr<bpu::Step>> steps;
};

namespace bpu {
namespace {

// In the order of bpu_kernels/engine/steps/context.py.
constexpr StepMaker kMakers[] = {
    make_gather, make_convolution, make_matmul,     make_add,        make_multiply, make_rescale,  make_relu,
    make_table8, make_table16,     make_window_sum, make_window_max, make_bilinear, make_constant,
};

std::unique_ptr<BpuPlan> read_plan(Words words, Isa isa) {
  auto plan = std::make_unique<BpuPlan>();
  while (!words.done()) {
    const int64_t number = words.next();
    if (number < 0 || number >= static_cast<int64_t>(std::size(kMakers))) throw BadPlan("unknown kind of step");
    plan->steps.push_back(kMakers[number](words, isa));
  }
  return plan;
}

}  // namespace
}  // namespace bpu

int32_t bpu_engine_version(void) { return 4; }

int32_t bpu_engine_isa(void) { return static_cast<int32_t>(bpu::best_isa()); }

BpuPlan* bpu_plan_create(const int64_t* words, int64_t count, const uint8_t* constants, int64_t constant_bytes,
                         int32_t isa, char* message, int64_t message_bytes) {
  try {
    const auto level = static_cast<bpu::Isa>(std::min(isa, bpu_engine_isa()));
    return bpu::read_plan(bpu::Words(words, count, constants, constant_bytes), level).release();
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), static_cast<std::size_t>(message_bytes - 1));
    message[message_bytes - 1] = '\0';
    return nullptr;
  }
}

int32_t bpu_plan_run(const BpuPlan* plan, uint8_t* workspace, const uint8_t* const* inputs, uint8_t* const* outputs,
                     int64_t begin, int64_t end, int32_t threads) {
  return bpu::without_throwing([&] {
    const bpu::Frame frame{workspace, inputs, outputs};
    for (int64_t i = begin; i < end; ++i) {
      const bpu::Step& step = *plan->steps[static_cast<std::size_t>(i)];
      bpu::parallel_for(step.units(), step.grain(), threads,
                        [&](int64_t first, int64_t last) { step.run(frame, first, last); });
    }
  });
}

void bpu_plan_destroy(BpuPlan* plan) { delete plan; }
