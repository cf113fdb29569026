// The device's own threads: a team that walks a list together, with a barrier between steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace mnemo::devices::cpu {

// A barrier spins for a short time and then sleeps on a futex, so that it costs little when every thread has
// a core of its own and does no harm when they share one.
class ThreadPool {
 public:
  // The calling thread is number 0; threads - 1 more are started. `cpus`: cores to stay on, used when there
  // are more of them than threads want (the calling thread is left alone); empty = not pinned.
  ThreadPool(int threads, const std::vector<int>& cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  using Job = void (*)(void* context, int thread);
  // Runs job(context, i) on every thread i and returns when all are done.
  void Run(Job job, void* context);

  // Within a job, called by all threads: what was written before is seen by all after.
  void Barrier();

 private:
  // A word that threads wait on until it changes.
  struct alignas(64) Word {
    std::atomic<uint32_t> value = 0;
    std::atomic<uint32_t> sleepers = 0;
  };
  static void WaitWhile(Word* word, uint32_t value);
  static void Advance(Word* word);
  void Work(int thread, int cpu);

  const int threads_;
  Word start_;    // counts jobs
  Word barrier_;  // counts barriers
  alignas(64) std::atomic<int> arrived_ = 0;
  std::atomic<bool> stop_ = false;
  Job job_ = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace mnemo::devices::cpu
