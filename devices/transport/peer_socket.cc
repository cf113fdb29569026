#include "devices/transport/peer_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "devices/base/clock.h"

namespace mnemo::transport {
namespace {

constexpr int64_t kPeerCheckIntervalNs = 2'000'000;

}  // namespace

absl::Status SendWake(int socket) {
  const char byte = 'W';
  if (::send(socket, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) return absl::OkStatus();
  if (errno == EAGAIN || errno == EINTR) return absl::OkStatus();
  return Unavailable("the peer is gone: {}", std::strerror(errno));
}

bool DrainWakes(int socket) {
  char bytes[256];
  const ssize_t got = ::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

bool PeerClosed(int socket) {
  pollfd fd = {socket, POLLRDHUP, 0};
  return ::poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

absl::Status PeerSocket::Wake() {
  absl::Status status = SendWake(fd());
  if (!status.ok()) MarkLost();
  return status;
}

bool PeerSocket::Drain() {
  if (!DrainWakes(fd())) MarkLost();
  return !lost_.load(std::memory_order_relaxed);
}

bool PeerSocket::lost(bool now) const {
  if (lost_.load(std::memory_order_relaxed)) return true;
  const int64_t now_ns = CoarseNowNs();
  if (!now && now_ns - checked_at_ns_.load(std::memory_order_relaxed) < kPeerCheckIntervalNs) return false;
  checked_at_ns_.store(now_ns, std::memory_order_relaxed);
  if (PeerClosed(fd())) lost_.store(true, std::memory_order_relaxed);
  return lost_.load(std::memory_order_relaxed);
}

}  // namespace mnemo::transport
