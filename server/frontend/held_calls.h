// Calls that arrive while this process drains and the next one is to take its sockets over.
#pragma once

#include <atomic>

namespace mnemo::frontend {

// Such a call gets no answer: its client sees the connection close, and with a retry policy repeats the call
// at the next process. An answer at once would use up the policy's attempts within a long drain. Thread-safe.
class HeldCalls {
 public:
  // From now on up to `most` calls are held at a time.
  void Begin(int most) { most_ = most; }
  // Whether a new call is to be held; Remove when it has ended.
  bool Add() {
    if (count_.fetch_add(1) < most_) return true;
    --count_;
    return false;
  }
  void Remove() { --count_; }

 private:
  std::atomic<int> most_{0};
  std::atomic<int> count_{0};
};

}  // namespace mnemo::frontend
