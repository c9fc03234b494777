// The pool behind parallel_for: workers take ranges from a shared counter until none is left.
#include "threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace bpu {
namespace {

// Steps follow each other within microseconds; a worker waits so many rounds awake before it sleeps.
constexpr int kAwakeRounds = 20000;
// Ranges per thread: more even out threads of different speed, fewer cost less.
constexpr int64_t kRangesPerThread = 4;

void pause() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  // The caller works too, so there is one worker fewer than threads. Workers that wake too late are not waited for.
  void run(int64_t units, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& work) {
    grow(threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      units_ = units;
      range_ = std::max(grain, (units - 1) / (threads * kRangesPerThread) + 1);
      next_.store(0, std::memory_order_relaxed);
      helpers_ = threads - 1;
      open_ = true;
      job_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
    }
    while (active_.load(std::memory_order_acquire) != 0) pause();
    if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void grow(int workers) {
    while (static_cast<int>(workers_.size()) < workers) {
      const int number = static_cast<int>(workers_.size());
      try {
        workers_.emplace_back([this, number, seen = job_.load()] { serve(number, seen); });
      } catch (const std::system_error&) {
        return;  // the process may have no more threads: those that there are do the work
      }
      workers_.back().detach();
    }
  }

  void serve(int number, uint64_t seen) {
    for (;;) {
      for (int round = 0; round < kAwakeRounds && job_.load(std::memory_order_acquire) == seen; ++round) pause();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return job_.load(std::memory_order_relaxed) != seen; });
        seen = job_.load(std::memory_order_relaxed);
        if (!open_ || number >= helpers_) continue;
        active_.fetch_add(1, std::memory_order_relaxed);
      }
      take();
      active_.fetch_sub(1, std::memory_order_release);
    }
  }

  // Keeps what the work throws for the caller, who rethrows it when nobody works any more.
  void take() {
    try {
      for (;;) {
        const int64_t begin = next_.fetch_add(range_, std::memory_order_relaxed);
        if (begin >= units_) return;
        (*work_)(begin, std::min(begin + range_, units_));
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
      next_.store(units_, std::memory_order_relaxed);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> job_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> active_{0};
  std::exception_ptr error_;
  const std::function<void(int64_t, int64_t)>* work_ = nullptr;
  int64_t units_ = 0;
  int64_t range_ = 1;
  int helpers_ = 0;
  bool open_ = false;
};

struct Owner {
  std::mutex mutex;
  Pool* pool = nullptr;
#if !defined(_WIN32)
  pid_t process = 0;  // a forked child has none of its parent's threads
#endif
};

Pool& pool_of(Owner& owner) {
#if !defined(_WIN32)
  if (owner.pool != nullptr && owner.process != getpid()) owner.pool = nullptr;
  owner.process = getpid();
#endif
  if (owner.pool == nullptr) owner.pool = new Pool;  // lives as long as the process, as its threads do
  return *owner.pool;
}

}  // namespace

void parallel_for(int64_t units, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& work) {
  static Owner& owner = *new Owner;
  const int64_t useful = std::min<int64_t>(threads, units / std::max<int64_t>(grain, 1));
  if (useful > 1) {
    std::unique_lock<std::mutex> lock(owner.mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      pool_of(owner).run(units, grain, static_cast<int>(useful), work);
      return;
    }
  }
  if (units > 0) work(0, units);
}

}  // namespace bpu
