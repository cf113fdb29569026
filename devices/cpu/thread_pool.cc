#include "devices/cpu/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

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
    workers_.emplace_back([this, i, cpu] { Work(i, cpu); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  Advance(&start_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::WaitWhile(Word* word, uint32_t value) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (word->value.load(std::memory_order_acquire) != value) return;
      Pause();
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() - begin < kSpinTime);
  // Sequentially consistent, so that either this thread sees the new value or Advance sees the sleeper.
  word->sleepers.fetch_add(1);
  while (word->value.load() == value) Futex(&word->value, FUTEX_WAIT, value);
  word->sleepers.fetch_sub(1);
}

void ThreadPool::Advance(Word* word) {
  word->value.fetch_add(1);
  if (word->sleepers.load() != 0) Futex(&word->value, FUTEX_WAKE, INT32_MAX);
}

void ThreadPool::Run(Job job, void* context) {
  job_ = job;
  context_ = context;
  if (threads_ > 1) Advance(&start_);
  job(context, 0);
  Barrier();
}

void ThreadPool::Barrier() {
  if (threads_ == 1) return;
  const uint32_t generation = barrier_.value.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    Advance(&barrier_);
  } else {
    WaitWhile(&barrier_, generation);
  }
}

void ThreadPool::Work(int thread, int cpu) {
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cpu), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }
  for (uint32_t job = 0;; ++job) {
    WaitWhile(&start_, job);
    if (stop_.load(std::memory_order_relaxed)) return;
    job_(context_, thread);
    Barrier();
  }
}

}  // namespace mnemo::devices::cpu
