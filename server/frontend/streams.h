// The live streams: who reads too slowly is found, and a drain waits for them and cuts the rest.
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
  // Called several times a second.
  virtual void Sweep(std::chrono::steady_clock::time_point now) = 0;
  // Ends it with `status` if it has not ended yet; false if it had.
  virtual bool Cut(const absl::Status& status) = 0;
};

struct DrainResult {
  int finished = 0;  // ended by themselves while it waited
  int cut = 0;
  bool resumed = false;  // Resume came before the end
};

// Thread-safe.
class Streams {
 public:
  Streams();
  ~Streams();

  // How a stream left, as a drain counts it.
  enum class End { kRefused, kFinished, kCut };

  // To be called before the stream is admitted, so that a drain that refuses none of it waits for it.
  void Add(std::shared_ptr<Stream> stream);
  // kCut: Cut ended it, so that a drain that goes on waiting, with a later deadline, does not take it for
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
    DrainResult result;  // so far
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
  bool is_asleep_ = false;  // the thread, until there is a stream
  std::thread thread_;
};

}  // namespace mnemo::frontend
