// Arrays whose first element begins a cache line, so that no vector that is read from them crosses one.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace bpu {

constexpr std::size_t kCacheLine = 64;

template <typename T>
struct AlignedAllocator {
  using value_type = T;

  AlignedAllocator() = default;
  template <typename U>
  AlignedAllocator(const AlignedAllocator<U>&) {}

  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kCacheLine}));
  }

  void deallocate(T* from, std::size_t) { ::operator delete(from, std::align_val_t{kCacheLine}); }

  bool operator==(const AlignedAllocator&) const { return true; }
  bool operator!=(const AlignedAllocator&) const { return false; }
};

template <typename T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace bpu
