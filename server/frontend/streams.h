// Live streams: a sweep finds slow readers, and a drain waits for the streams and cuts the rest.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::frontend {

// One generation, as seen from here. Thread-safe.
class Stream {
 public:
  virtual ~Stream() = default;
  // Called several times a second, on one thread for all streams; must not block.
  virtual void Sweep(std::chrono::steady_clock::time_point now) = 0;
  // Ends it with `status` if it has not ended yet; false if it had.
  virtual bool Cut(const absl::Status& status) = 0;
};

struct DrainResult {
  // Streams that ended by themselves during the drain, and streams that it cut.
  int finished = 0;
  int cut = 0;
  // Resume came before the end.
  bool resumed = false;
};

// Thread-safe.
class Streams {
 public:
  Streams();
  ~Streams();

  // The end of a stream, as a drain counts it.
  enum class End { kRefused, kFinished, kCut };

  // Call it before the stream is admitted: a drain then either refuses the stream or waits for it.
  void Add(std::shared_ptr<Stream> stream);
  // `end` is kCut when Cut ended the stream: a second drain, with a later deadline, does not count it as
  // finished.
  void Remove(const Stream* stream, End end);
  int count() const;

  // Waits until no stream is left, or `deadline`, when it cuts what is left with UNAVAILABLE. `done` is
  // called once, on any thread, without a lock.
  void Drain(std::chrono::steady_clock::time_point deadline, std::function<void(DrainResult)> done);
  // Ends every waiting drain, with `resumed`.
  void Resume();

 private:
  struct Waiter {
    std::chrono::steady_clock::time_point deadline;
    DrainResult result;
    std::function<void(DrainResult)> done;
  };
  void Loop();
  std::vector<std::shared_ptr<Stream>> Snapshot() const;
  void CutExpired(std::chrono::steady_clock::time_point now);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<const Stream*, std::shared_ptr<Stream>> live_;
  std::vector<Waiter> waiters_;
  bool is_ending_ = false;
  // The thread waits for a first stream.
  bool is_asleep_ = false;
  std::thread thread_;
};

}  // namespace mnemo::frontend
