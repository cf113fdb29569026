// One thread for work on long texts. A prompt of megabytes takes long to tokenize; on gRPC's few callback
// threads it would hold up every other stream. When idle, the pool returns the memory of long texts to the
// system.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace mnemo::frontend {

class TextPool {
 public:
  // Shorter texts are tokenized on the caller's thread.
  static constexpr size_t kLongTextBytes = 32 << 10;
  static constexpr size_t kMaxQueued = 64;
  // A chat waits for its rendering, which mostly takes 0.1 ms.
  static constexpr size_t kMaxQueuedChats = 4096;

  explicit TextPool(size_t max_queued = kMaxQueued);
  // Runs the queued work first.
  ~TextPool();

  // Queues `work`; false when the queue is full. Thread-safe; does not block.
  bool Run(std::function<void()> work);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  const size_t max_queued_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace mnemo::frontend
