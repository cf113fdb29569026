// One thread for work on long texts. A prompt of megabytes takes long to tokenize, and gRPC has few callback
// threads: on them it would hold up every other stream. Once it is idle, memory that long texts took is given
// back to the system.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace mnemo::frontend {

class TextPool {
 public:
  // Shorter work is done where it arises.
  static constexpr size_t kLongTextBytes = 32 << 10;
  static constexpr size_t kMaxQueued = 64;
  // Chats wait for their template to be rendered, which mostly takes a tenth of a millisecond.
  static constexpr size_t kMaxQueuedChats = 4096;

  explicit TextPool(size_t max_queued = kMaxQueued);
  ~TextPool();  // after the work that is queued

  // False when the queue is full.
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
