#include "devices/transport/request_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace mnemo::transport {

absl::StatusOr<std::unique_ptr<RequestReader>> RequestReader::Create(UniqueFd listening) {
  // A connection may close between poll and accept.
  if (::fcntl(listening.get(), F_SETFL, O_NONBLOCK) != 0) return Internal("fcntl: {}", std::strerror(errno));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return Internal("eventfd: {}", std::strerror(errno));
  return std::unique_ptr<RequestReader>(new RequestReader(std::move(listening), std::move(stop)));
}

RequestReader::RequestReader(UniqueFd listening, UniqueFd stop)
    : listening_(std::move(listening)), stop_(std::move(stop)) {
  pending_.reserve(kMaxPending);
}

void RequestReader::Stop() {
  const uint64_t one = 1;
  MNEMO_CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
}

bool RequestReader::Next(UniqueFd* socket, AttachRequest* request) {
  while (true) {
    pollfd fds[2 + kMaxPending];
    fds[0] = {stop_.get(), POLLIN, 0};
    // With all places taken, further connections wait in the system's queue.
    fds[1] = {pending_.size() < kMaxPending ? listening_.get() : -1, POLLIN, 0};
    for (size_t i = 0; i < pending_.size(); ++i) fds[2 + i] = {pending_[i].socket.get(), POLLIN, 0};
    const int ready = ::poll(fds, 2 + pending_.size(), pending_.empty() ? -1 : 100);
    if (ready < 0) continue;  // EINTR
    if (fds[0].revents != 0) return false;
    const Deadline now = std::chrono::steady_clock::now();
    bool found = false;
    for (size_t i = 0; i < pending_.size(); ++i) {
      Pending& pending = pending_[i];
      if (fds[2 + i].revents == 0) {
        if (now > pending.until) pending.socket.Reset();
      } else if (!found) {  // other pending data stays readable for the next call
        if (!Read(&pending)) {
          pending.socket.Reset();
        } else if (pending.got == sizeof pending.request) {
          *request = pending.request;
          *socket = std::move(pending.socket);
          found = true;
        }
      }
    }
    std::erase_if(pending_, [](const Pending& pending) { return !pending.socket.valid(); });
    if (fds[1].revents != 0) Accept();
    if (found) return true;
  }
}

void RequestReader::Accept() {
  UniqueFd socket(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.valid()) return;
  pending_.push_back({std::move(socket), std::chrono::steady_clock::now() + kRequestTime, {}, 0});
}

bool RequestReader::Read(Pending* pending) {
  auto* const bytes = reinterpret_cast<std::byte*>(&pending->request);
  const ssize_t got = ::recv(pending->socket.get(), bytes + pending->got,
                             sizeof pending->request - pending->got, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  pending->got += static_cast<size_t>(got);
  return got > 0;
}

}  // namespace mnemo::transport
