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

  TextPool();
  ~TextPool();  // after the work that is queued

  // False when the queue is full.
  bool Run(std::function<void()> work);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace mnemo::frontend
