#include "server/frontend/chat/frame_channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace mnemo::chat {

FrameChannel::Result FrameChannel::Wait(short events, Deadline deadline) const {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return Result::kLate;
    pollfd fds[] = {{fd_, events, 0}, {wake_, POLLIN, 0}};  // poll skips a negative descriptor
    const int count = ::poll(fds, 2, static_cast<int>(std::min<int64_t>(left.count(), 60000)));
    if (count < 0 && errno != EINTR) return Result::kClosed;
    if (count <= 0) continue;
    return fds[1].revents != 0 ? Result::kClosed : Result::kDone;
  }
}

FrameChannel::Result FrameChannel::SendAll(std::string_view bytes, Deadline deadline, bool more) const {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      if (const Result result = Wait(POLLOUT, deadline); result != Result::kDone) return result;
    } else if (errno != EINTR) {
      return Result::kClosed;
    }
  }
  return Result::kDone;
}

FrameChannel::Result FrameChannel::Send(std::string_view body, Deadline deadline) const {
  // A short body is sent together with its length, so that the other end wakes up once.
  std::string frame;
  for (int shift = 0; shift < 32; shift += 8) frame.push_back(static_cast<char>(body.size() >> shift & 0xFF));
  constexpr size_t kShort = 64 << 10;
  if (body.size() <= kShort) return SendAll(frame.append(body), deadline, false);
  const Result result = SendAll(frame, deadline, true);
  return result == Result::kDone ? SendAll(body, deadline, false) : result;
}

FrameChannel::Result FrameChannel::ReceiveAll(char* bytes, size_t count, Deadline deadline) const {
  while (count > 0) {
    const ssize_t got = ::recv(fd_, bytes, count, MSG_DONTWAIT);
    if (got > 0) {
      bytes += got;
      count -= static_cast<size_t>(got);
    } else if (got == 0) {
      return Result::kClosed;
    } else if (errno == EAGAIN) {
      if (const Result result = Wait(POLLIN, deadline); result != Result::kDone) return result;
    } else if (errno != EINTR) {
      return Result::kClosed;
    }
  }
  return Result::kDone;
}

FrameChannel::Result FrameChannel::Receive(size_t most, Deadline deadline, std::string* body) const {
  unsigned char length[4];
  if (const Result result = ReceiveAll(reinterpret_cast<char*>(length), 4, deadline);
      result != Result::kDone) {
    return result;
  }
  const size_t count = length[0] | size_t{length[1]} << 8 | size_t{length[2]} << 16 | size_t{length[3]} << 24;
  if (count > most) return Result::kTooLong;
  body->resize(count);
  return ReceiveAll(body->data(), count, deadline);
}

}  // namespace mnemo::chat
