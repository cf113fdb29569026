// The device's own threads: a team that does a list of steps together, each cut into items of work.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

namespace mnemo::devices::cpu {

// A step is over when its items are done, not when every thread has been there: a thread that the system has
// put aside holds up the others only while it has an item in hand. Who finishes the last item of a step opens
// the next one. A thread with nothing to do spins for a short time and then sleeps on a futex, so that
// waiting costs little when every thread has a core of its own and does no harm when they share one.
class ThreadPool {
 public:
  struct Step {
    int64_t items = 0;   // at most kMaxItems; with 0 the step is skipped
    bool alone = false;  // less work than handing it out: one thread does all items
  };
  static constexpr int64_t kMaxItems = (int64_t{1} << 24) - 1;

  // The items that one thread takes of the step at hand.
  class Items {
   public:
    // Of Next: the step has no more items for this thread; greater than all item numbers.
    static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    // Item numbers rise from call to call. Until Work returns, the step cannot end.
    int64_t Next();

   private:
    friend class ThreadPool;
    ThreadPool* pool = nullptr;  // nullptr: all items are this thread's
    int64_t count = 0;
    int64_t next = 0;   // drawn and not yet handed out; without a pool: the next one
    int64_t taken = 0;  // drawn so far
  };

  // What the team is to do. Every call is ordered after those for the steps before.
  class Job {
   public:
    virtual ~Job() = default;
    // Goes on to the next step, on the thread that ended the one before; false after the last one.
    virtual bool NextStep(Step* step) = 0;
    // Does items of the current step until items.Next() has no more; at least one is there. Called at most
    // once for each thread and step, by several threads at once.
    virtual void Work(int thread, Items& items) = 0;
  };

  // The calling thread is number 0; threads - 1 more are started. `cpus`: cores to stay on, used when there
  // are more of them than threads want (the calling thread is left alone); empty = not pinned.
  ThreadPool(int threads, const std::vector<int>& cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Returns when all steps are done. A job whose steps are all done alone wakes nobody. One caller at a time.
  void Run(Job* job);

 private:
  // Which step is open and how many of its items nobody has drawn, in one word, so that a thread that comes
  // late cannot draw from a step that is over.
  static constexpr int kCountBits = 24;
  static constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
  static constexpr uint64_t kIdle = uint64_t{1} << kCountBits;  // no job
  static constexpr uint64_t kStep = kIdle << 1;                 // and so many bits for the step's number

  // Takes an item if the word still has one; the word as seen last stays in *word.
  bool Draw(uint64_t* word);
  // Takes part in the open step, if any item of it is left.
  bool TakePart(int thread);
  // Does steps alone and opens the first one that is not; ends the job after the last. put_aside: the step
  // before ended late since the thread was.
  void OpenNext(int thread, bool put_aside);
  void Open(uint64_t low_bits);
  void WaitWhile(uint64_t word);
  // The system has run something else on the thread's core since the last call.
  bool WasPutAside(int thread);
  void Serve(int thread, int cpu);

  const int threads_;
  std::atomic<bool> stop_ = false;
  Job* job_ = nullptr;
  int64_t count_ = 0;                        // items of the open step
  std::vector<int64_t> switches_;            // [threads], each its thread's own
  std::atomic<bool> put_aside_ = false;      // of the thread that ended the step before, if others slept
  std::atomic<int64_t> alone_until_ns_ = 0;  // of the steady clock
  alignas(64) std::atomic<uint64_t> word_ = kIdle;
  alignas(64) std::atomic<int64_t> done_ = 0;  // items of the open step
  alignas(64) std::atomic<uint32_t> sleepers_ = 0;
  std::atomic<uint32_t> wakes_ = 0;  // what sleepers wait on
  std::vector<std::thread> workers_;
};

}  // namespace mnemo::devices::cpu
