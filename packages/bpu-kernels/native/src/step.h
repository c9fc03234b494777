// A step of a plan: work that falls into independent units, any range of which a thread can do.
#pragma once

#include <cstdint>
#include <memory>

#include "isa.h"
#include "tensor.h"
#include "words.h"

namespace bpu {

class Step {
 public:
  virtual ~Step() = default;

  // Number of units, such as positions of the output.
  virtual int64_t units() const = 0;

  // Fewest units that are worth a thread's while.
  virtual int64_t grain() const { return 1; }

  // Does the units from `begin` to before `end`; units of one step may run at the same time.
  virtual void run(const Frame& frame, int64_t begin, int64_t end) const = 0;
};

using StepMaker = std::unique_ptr<Step> (*)(Words& words, Isa isa);

// The makers, one per kind of step; plan.cpp has the table of their numbers.
std::unique_ptr<Step> make_gather(Words& words, Isa isa);
std::unique_ptr<Step> make_convolution(Words& words, Isa isa);
std::unique_ptr<Step> make_matmul(Words& words, Isa isa);
std::unique_ptr<Step> make_add(Words& words, Isa isa);
std::unique_ptr<Step> make_multiply(Words& words, Isa isa);
std::unique_ptr<Step> make_rescale(Words& words, Isa isa);
std::unique_ptr<Step> make_relu(Words& words, Isa isa);
std::unique_ptr<Step> make_table8(Words& words, Isa isa);
std::unique_ptr<Step> make_table16(Words& words, Isa isa);
std::unique_ptr<Step> make_window_sum(Words& words, Isa isa);
std::unique_ptr<Step> make_window_max(Words& words, Isa isa);
std::unique_ptr<Step> make_bilinear(Words& words, Isa isa);
std::unique_ptr<Step> make_constant(Words& words, Isa isa);

}  // namespace bpu
