// Frames over a stream socket with a time limit: four bytes of length, little-endian, then the body of that
// length.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace mnemo::chat {

using Deadline = std::chrono::steady_clock::time_point;

// Does not own its descriptors. When `wake` (-1: none) becomes readable, a wait ends with kClosed.
class FrameChannel {
 public:
  enum class Result { kDone, kLate, kClosed, kTooLong };

  FrameChannel(int fd, int wake) : fd_(fd), wake_(wake) {}
  // Blocks up to the deadline; kLate when it has passed.
  Result Send(std::string_view body, Deadline deadline) const;
  // Blocks up to the deadline; kLate when it has passed. kTooLong: the body exceeds `most`; the channel is
  // not usable afterwards.
  Result Receive(size_t most, Deadline deadline, std::string* body) const;

 private:
  Result SendAll(std::string_view bytes, Deadline deadline, bool more) const;
  Result ReceiveAll(char* bytes, size_t count, Deadline deadline) const;
  Result Wait(short events, Deadline deadline) const;

  const int fd_;
  const int wake_;
};

}  // namespace mnemo::chat
