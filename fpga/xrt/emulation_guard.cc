#include "fpga/xrt/emulation_guard.h"

#include <absl/strings/numbers.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

namespace mnemo::xrt_card {
namespace {

constexpr char kEnded[] =
    "XRT's emulation: the device process has ended, and with it the card; this program ends\n";

std::string SocketPath() {
  const char* const user = std::getenv("USER");
  const char* const id = std::getenv("EMULATION_SOCKETID");  // set by XRT
  return user == nullptr || id == nullptr ? "" : fmt::format("/tmp/{}/{}", user, id);
}

// Process at the other end of this process' socket of that name; 0: there is no such socket.
pid_t PeerOf(const std::string& path) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    int fd = -1;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &fd)) continue;
    sockaddr_un address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
    if (address.sun_family != AF_UNIX || size < sizeof address.sun_family) continue;
    if (std::string(address.sun_path, ::strnlen(address.sun_path, sizeof address.sun_path)) != path) continue;
    ucred peer{};
    size = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid != ::getpid()) {
      return peer.pid;
    }
  }
  return 0;
}

}  // namespace

EmulationGuard::EmulationGuard() : group_(::getpgrp()) {
  for (size_t n = 0; n < kSignals.size(); ++n) ::sigaction(kSignals[n], nullptr, &handlers_[n]);
  ::sigaction(SIGPIPE, nullptr, &pipe_handler_);
  // Fails for the leader of a session, which has a group of its own.
  ::setpgid(0, 0);
}

void EmulationGuard::Restore() {
  for (size_t n = 0; n < kSignals.size(); ++n) ::sigaction(kSignals[n], &handlers_[n], nullptr);
  ::setpgid(0, group_);
}

absl::Status EmulationGuard::Watch() {
  const std::string path = SocketPath();
  pid_ = path.empty() ? 0 : PeerOf(path);
  if (pid_ == 0) return Internal("XRT's emulation: no socket {}", path);
  process_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!process_.valid() || !stop_.valid()) {
    return Internal("XRT's emulation: process {}: {}", pid_, std::strerror(errno));
  }
  Restore();
  // A call of XRT may write to the device process before the watcher has run.
  if (pipe_handler_.sa_handler == SIG_DFL) ::signal(SIGPIPE, SIG_IGN);
  watcher_ = std::thread([process = process_.get(), stop = stop_.get()] {
    pollfd fds[] = {{process, POLLIN, 0}, {stop, POLLIN, 0}};
    while (::poll(fds, 2, -1) < 0 && errno == EINTR) {
    }
    if (fds[1].revents != 0) return;
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kEnded, sizeof kEnded - 1);
    ::_exit(1);
  });
  return absl::OkStatus();
}

void EmulationGuard::Close() {
  if (watcher_.joinable()) {
    const uint64_t one = 1;
    MNEMO_CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
    watcher_.join();
  }
  ::setpgid(0, 0);
}

EmulationGuard::~EmulationGuard() {
  Close();
  Restore();
  ::sigaction(SIGPIPE, &pipe_handler_, nullptr);
}

}  // namespace mnemo::xrt_card
