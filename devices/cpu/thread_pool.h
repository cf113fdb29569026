// The device's own threads: a pool that runs a list of steps together, each divided into items of work.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

namespace mnemo::devices::cpu {

// A step ends when its items are done, not when every thread has arrived. A thread that the system has
// preempted delays the others only while it holds an item. The thread that finishes the last item of a step
// opens the next one. An idle thread spins for a short time and then sleeps on a futex. Waiting is thus cheap
// when every thread has its own core, and harmless when threads share one.
class ThreadPool {
 public:
  struct Step {
    // At most kMaxItems; with 0 the step is skipped.
    int64_t items = 0;
    // The work costs less than distributing it: one thread does all items.
    bool alone = false;
  };
  static constexpr int64_t kMaxItems = (int64_t{1} << 24) - 1;

  // The items that one thread takes from the current step.
  class Items {
   public:
    // Result of Next when the step has no more items for this thread; greater than all item numbers.
    static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    // Returns the next item number. Numbers ascend from call to call. The step cannot end until Work returns.
    int64_t Next();

   private:
    friend class ThreadPool;
    // nullptr: all items belong to this thread.
    ThreadPool* pool = nullptr;
    int64_t count = 0;
    // Drawn but not yet returned; without a pool, the next item.
    int64_t next = 0;
    // Items drawn so far.
    int64_t taken = 0;
  };

  // A job for the pool. Every call happens after the calls for earlier steps.
  class Job {
   public:
    virtual ~Job() = default;
    // Advances to the next step, on the thread that ended the previous one; returns false after the last
    // step.
    virtual bool NextStep(Step* step) = 0;
    // Does items of the current step until items.Next() returns kNone; there is at least one item. Called at
    // most once per thread and step, concurrently on several threads.
    virtual void Work(int thread, Items& items) = 0;
  };

  // The calling thread is number 0; threads - 1 more are started. `cpus` are cores to pin threads to, used
  // when the machine has more cores than `threads`. The calling thread is not pinned. Empty: not pinned.
  ThreadPool(int threads, const std::vector<int>& cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Blocks until all steps are done. A job whose steps are all `alone` wakes no thread. One caller at a time.
  void Run(Job* job);

 private:
  // The number of the open step and the count of its undrawn items share one word, so that a late thread
  // cannot draw from a step that has ended.
  static constexpr int kCountBits = 24;
  static constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
  // No job.
  static constexpr uint64_t kIdle = uint64_t{1} << kCountBits;
  // The bits above it are the number of the step.
  static constexpr uint64_t kStep = kIdle << 1;

  // Takes an item if the word still has one. *word receives the last value seen.
  bool Draw(uint64_t* word);
  // Takes part in the open step if any of its items is left.
  bool TakePart(int thread);
  // Runs `alone` steps and opens the first other one; ends the job after the last. preempted: the previous
  // step ended late because its thread was preempted.
  void OpenNext(int thread, bool preempted);
  void Open(uint64_t low_bits);
  void WaitWhile(uint64_t word);
  // Returns whether the system has run something else on the thread's core since the last call.
  bool WasPreempted(int thread);
  void Serve(int thread, int cpu);

  const int threads_;
  std::atomic<bool> stop_ = false;
  Job* job_ = nullptr;
  // Items of the open step.
  int64_t count_ = 0;
  // [threads], each entry used by its own thread.
  std::vector<int64_t> switches_;
  // Set when the thread that ended the previous step was preempted while others slept.
  std::atomic<bool> preempted_ = false;
  // Time by NowNs.
  std::atomic<int64_t> alone_until_ns_ = 0;
  alignas(64) std::atomic<uint64_t> word_ = kIdle;
  // Completed items of the open step.
  alignas(64) std::atomic<int64_t> done_ = 0;
  alignas(64) std::atomic<uint32_t> sleepers_ = 0;
  // Futex word on which sleepers wait.
  std::atomic<uint32_t> wakes_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace mnemo::devices::cpu
