#include "devices/cpu/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "devices/base/clock.h"
#include "devices/base/status.h"
#include "devices/base/wait.h"

namespace mnemo::devices::cpu {
namespace {

// A wait that justifies single-threaded work afterwards. It is longer than the core time of a program that
// only sends or receives a message, and shorter than a scheduler's time slice. Work is then single-threaded
// for kAloneFactor times the wait, at most kMaxAloneNs, so that a new attempt costs little.
constexpr int64_t kLongWaitNs = 1'000'000;
constexpr int64_t kAloneFactor = 8;
constexpr int64_t kMaxAloneNs = 100'000'000;

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation | FUTEX_PRIVATE_FLAG, value, nullptr,
          nullptr, 0);
}

}  // namespace

ThreadPool::ThreadPool(int threads, const std::vector<int>& cpus)
    : threads_(threads), switches_(static_cast<size_t>(threads)) {
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
  OpenNext(0, false);
  for (uint64_t word; ((word = word_.load(std::memory_order_acquire)) & kIdle) == 0;) {
    if (!TakePart(0)) WaitWhile(word);
  }
}

bool ThreadPool::TakePart(int thread) {
  uint64_t word = word_.load(std::memory_order_acquire);
  if (!Draw(&word)) return false;
  // The current item keeps the step open, and with it the job and its count.
  Items items;
  items.pool = this;
  items.count = count_;
  items.next = items.count - static_cast<int64_t>(word & kCountMask);
  items.taken = 1;
  job_->Work(thread, items);
  if (done_.fetch_add(items.taken, std::memory_order_acq_rel) + items.taken == items.count) {
    OpenNext(thread, sleepers_.load(std::memory_order_relaxed) != 0 && WasPreempted(thread));
  }
  return true;
}

void ThreadPool::OpenNext(int thread, bool preempted) {
  for (Step step; job_->NextStep(&step);) {
    if (step.items == 0) continue;
    MNEMO_CHECK(step.items > 0 && step.items <= kMaxItems);
    if (threads_ > 1 && step.items > 1 && !step.alone) {
      const int64_t alone_until_ns = alone_until_ns_.load(std::memory_order_relaxed);
      if (alone_until_ns == 0 || NowNs() >= alone_until_ns) {
        alone_until_ns_.store(0, std::memory_order_relaxed);
        count_ = step.items;
        done_.store(0, std::memory_order_relaxed);
        preempted_.store(preempted, std::memory_order_relaxed);
        Open(static_cast<uint64_t>(step.items));
        return;
      }
      preempted = false;
    }
    Items all;
    all.count = step.items;
    job_->Work(thread, all);
  }
  if ((word_.load(std::memory_order_relaxed) & kIdle) == 0) {
    preempted_.store(preempted, std::memory_order_relaxed);
    Open(kIdle);
  }
}

bool ThreadPool::WasPreempted(int thread) {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return std::exchange(switches_[static_cast<size_t>(thread)], usage.ru_nivcsw) != usage.ru_nivcsw;
}

// Sequentially consistent: either this thread sees the sleeper, or the sleeper sees the new word.
void ThreadPool::Open(uint64_t low_bits) {
  const uint64_t step = word_.load(std::memory_order_relaxed) & ~(kStep - 1);
  word_.store(step + kStep + low_bits);
  if (sleepers_.load() == 0) return;
  sleepers_.store(0);
  wakes_.fetch_add(1);
  Futex(&wakes_, FUTEX_WAKE, INT32_MAX);
}

void ThreadPool::WaitWhile(uint64_t word) {
  const int64_t begin_ns = NowNs();
  if (SpinUntil([&] { return word_.load(std::memory_order_acquire) != word; })) return;
  for (;;) {
    const uint32_t wakes = wakes_.load();
    sleepers_.store(1);
    if (word_.load() != word) break;
    Futex(&wakes_, FUTEX_WAIT, wakes);
  }
  if ((word & kIdle) != 0 || !preempted_.load(std::memory_order_relaxed)) return;
  const int64_t now_ns = NowNs();
  const int64_t waited_ns = now_ns - begin_ns;
  if (waited_ns < kLongWaitNs) return;
  alone_until_ns_.store(now_ns + std::min(kAloneFactor * waited_ns, kMaxAloneNs), std::memory_order_relaxed);
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
