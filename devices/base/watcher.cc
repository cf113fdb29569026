#include "devices/base/watcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace mnemo {
namespace {

// Returns whether another process listens at the path. SO_PEERCRED of the connecting end names the process
// that called listen (unix(7)).
bool ListensInAnotherProcess(const std::string& path) {
  sockaddr_un address = {};
  if (path.size() >= sizeof address.sun_path) return false;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    // A full backlog: an established server, not one that is just starting.
    return errno == EAGAIN;
  }
  ucred peer = {};
  socklen_t length = sizeof peer;
  return ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid != ::getpid();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Watcher>> Watcher::Create(Options options) {
  if (options.lifeline_fd >= 0 && ::fcntl(options.lifeline_fd, F_SETFD, FD_CLOEXEC) != 0) {
    return InvalidArgument("--lifeline-fd: {} is no open descriptor", options.lifeline_fd);
  }
  auto watcher = std::unique_ptr<Watcher>(new Watcher(std::move(options)));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  // A write past RLIMIT_FSIZE then fails with an error instead of a signal.
  ::signal(SIGXFSZ, SIG_IGN);
  watcher->signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
  watcher->stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!watcher->signals_.valid() || !watcher->stop_.valid()) {
    return Internal("signalfd or eventfd: {}", std::strerror(errno));
  }
  watcher->thread_ = std::thread([raw = watcher.get()] { raw->Loop(); });
  return watcher;
}

Watcher::Watcher(Options options) : options_(std::move(options)), lifeline_(options_.lifeline_fd) {}

Watcher::~Watcher() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  MNEMO_CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
}

void Watcher::SetListening() {
  {
    std::lock_guard lock(mutex_);
    listening_ = true;
  }
  // The read end of a pipe takes no bytes; in that case no process waits for them.
  const char listening = 'L';
  if (lifeline_.valid()) ::send(lifeline_.get(), &listening, 1, MSG_NOSIGNAL);
}

void Watcher::WaitForSignal() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return signalled_; });
}

void Watcher::EndProcess(int code) {
  if (options_.before_end) options_.before_end();
  // Two passes: another thread that is about to listen may make its socket once, after the first unlink.
  for (int pass = 0; pass < 2; ++pass) {
    for (const std::string& path : options_.socket_paths) {
      if (!path.empty() && !ListensInAnotherProcess(path)) ::unlink(path.c_str());
    }
    if (options_.private_dir.empty() || ::rmdir(options_.private_dir.c_str()) == 0) break;
  }
  ::_exit(code);
}

void Watcher::Loop() {
  // poll skips a descriptor of -1.
  pollfd fds[] = {{lifeline_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (true) {
    if (::poll(fds, 3, -1) < 0) continue;  // EINTR
    if (fds[0].revents != 0) {
      char byte;
      if (::read(lifeline_.get(), &byte, 1) <= 0) EndProcess(0);
    }
    if (fds[1].revents != 0) {
      signalfd_siginfo info;
      if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
      if (info.ssi_signo == SIGHUP) {
        if (options_.on_hangup) options_.on_hangup();
      } else {
        std::lock_guard lock(mutex_);
        if (!listening_ || signalled_) EndProcess(0);
        signalled_ = true;
        changed_.notify_all();
      }
    }
    if (fds[2].revents != 0) return;
  }
}

}  // namespace mnemo
