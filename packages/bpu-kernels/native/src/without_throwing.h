// What a function of the C interface does with exceptions: none leaves it.
#pragma once

#include <cstdint>
#include <exception>

namespace bpu {

// Returns 0, or 1 where the work could not be done, which is for want of memory.
template <typename Work>
int32_t without_throwing(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

}  // namespace bpu
