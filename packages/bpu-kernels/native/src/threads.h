// Splits the units of a step among threads that are kept from one step, and one run, to the next.
#pragma once

#include <cstdint>
#include <functional>

namespace bpu {

// Calls `work` with ranges that cover 0 .. units, each of at least `grain` units, on up to `threads` threads.
// A caller that finds the threads in use by another does its work alone.
void parallel_for(int64_t units, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& work);

}  // namespace bpu
