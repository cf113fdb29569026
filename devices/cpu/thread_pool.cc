#include "devices/cpu/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "devices/base/status.h"

namespace mnemo::devices::cpu {
namespace {

constexpr std::chrono::microseconds kSpinTime{50};
constexpr int kPausesPerLook = 64;  // of the clock

void Pause() { __builtin_ia32_pause(); }

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation | FUTEX_PRIVATE_FLAG, value, nullptr,
          nullptr, 0);
}

}  // namespace

ThreadPool::ThreadPool(int threads, const std::vector<int>& cpus) : threads_(threads) {
  const bool pin = cpus.size() > 0 && static_cast<int>(cpus.size()) >= threads &&
                   threads < static_cast<int>(std::thread::hardware_concurrency());
  for (int i = 1; i < threads; ++i) {
    const int cpu = pin ? cpus[static_cast<size_t>(i)] : -1;
    workers_.emplace_back([this, i, cpu] { Serve(i, cpu); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  Open(kIdle);
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadPool::Items::Next() {
  if (pool == nullptr) return next < count ? next++ : kNone;
  if (next != kNone) {
    const int64_t first = next;
    next = kNone;
    return first;
  }
  uint64_t word = pool->word_.load(std::memory_order_relaxed);
  if (!pool->Draw(&word)) return kNone;
  ++taken;
  return count - static_cast<int64_t>(word & kCountMask);
}

bool ThreadPool::Draw(uint64_t* word) {
  while ((*word & kCountMask) != 0) {
    if (word_.compare_exchange_weak(*word, *word - 1, std::memory_order_acquire)) return true;
  }
  return false;
}

void ThreadPool::Run(Job* job) {
  job_ = job;
  OpenNext(0);
  for (uint64_t word; ((word = word_.load(std::memory_order_acquire)) & kIdle) == 0;) {
    if (!TakePart(0)) WaitWhile(word);
  }
}

bool ThreadPool::TakePart(int thread) {
  uint64_t word = word_.load(std::memory_order_acquire);
  if (!Draw(&word)) return false;
  // The item in hand keeps the step open, and with it the job and its count.
  Items items;
  items.pool = this;
  items.count = count_;
  items.next = items.count - static_cast<int64_t>(word & kCountMask);
  items.taken = 1;
  job_->Work(thread, items);
  const int64_t count = items.count;
  if (done_.fetch_add(items.taken, std::memory_order_acq_rel) + items.taken == count) OpenNext(thread);
  return true;
}

void ThreadPool::OpenNext(int thread) {
  for (Step step; job_->NextStep(&step);) {
    if (step.items == 0) continue;
    MNEMO_CHECK(step.items > 0 && step.items <= kMaxItems);
    if (threads_ > 1 && step.items > 1 && !step.alone) {
      count_ = step.items;
      done_.store(0, std::memory_order_relaxed);
      Open(static_cast<uint64_t>(step.items));
      return;
    }
    Items all;
    all.count = step.items;
    job_->Work(thread, all);
  }
  if ((word_.load(std::memory_order_relaxed) & kIdle) == 0) Open(kIdle);
}

// Sequentially consistent, so that either this thread sees the sleeper or the sleeper sees the new word.
void ThreadPool::Open(uint64_t low_bits) {
  const uint64_t step = word_.load(std::memory_order_relaxed) & ~(kStep - 1);
  word_.store(step + kStep + low_bits);
  if (sleepers_.load() == 0) return;
  sleepers_.store(0);
  wakes_.fetch_add(1);
  Futex(&wakes_, FUTEX_WAKE, INT32_MAX);
}

void ThreadPool::WaitWhile(uint64_t word) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (word_.load(std::memory_order_acquire) != word) return;
      Pause();
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() - begin < kSpinTime);
  for (;;) {
    const uint32_t wakes = wakes_.load();
    sleepers_.store(1);
    if (word_.load() != word) return;
    Futex(&wakes_, FUTEX_WAIT, wakes);
  }
}

void ThreadPool::Serve(int thread, int cpu) {
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cpu), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  for (;;) {
    const uint64_t word = word_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!TakePart(thread)) WaitWhile(word);
  }
}

}  // namespace mnemo::devices::cpu
