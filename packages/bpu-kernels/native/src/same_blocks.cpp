// Whether blocks of memory still hold what they held: one call for all tensors of a model.
#include <cstring>

#include "engine.h"

extern "C" int32_t bpu_same_blocks(const void* const* blocks, const void* const* others, const int64_t* bytes,
                                   int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::memcmp(blocks[i], others[i], static_cast<size_t>(bytes[i])) != 0) {
      return 0;
    }
  }
  return 1;
}
