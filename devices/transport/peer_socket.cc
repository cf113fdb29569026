#include "devices/transport/peer_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace mnemo::transport {

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

}  // namespace mnemo::transport
