// The parameters that finish accumulators, arranged for kernels of 32-bit sums; or the knowledge that those do not do.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "aligned.h"
#include "kernels.h"
#include "requantize.h"
#include "residual.h"

namespace bpu {

class FinishTable {
 public:
  // `reach` bounds the sum of products per channel, `correction` is added to it (for inputs with an offset). Returns
  // nothing where a sum could leave 32 bits, or where the output is none that kernels write.
  static std::optional<FinishTable> make(const Requantizer& by, const Residual& residual,
                                         const std::vector<int64_t>& reach, const std::vector<int64_t>& correction,
                                         const int8_t* order);

  // The parameters from a panel on.
  Finish from(int64_t panel) const;

 private:
  AlignedVector<int32_t> bias_, accu_, half_, right_, residual_scale_, residual_left_, residual_right_;
  AlignedVector<int16_t> scale_, nudge_, factor_;
  std::vector<uint8_t> is_short_;
  bool relu_ = false;
};

}  // namespace bpu
