#include "server/link/acceptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "devices/base/address.h"
#include "server/link/socket.h"

namespace mnemo::link {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kShortagePause{50};
// Time for a client to make its call and receive the answer.
constexpr milliseconds kRefusalTime{1000};
// Refusals served at the same time; beyond this number, the oldest is closed.
constexpr size_t kMaxRefusals = 16;
// Minimum time between two checks of all connections, at the limit.
constexpr milliseconds kForgetPause{10};
constexpr int kAcceptsInARow = 64;

// Returns whether the error belongs to the connection, not to this process: accept(2).
bool IsOfTheConnection(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

}  // namespace

Acceptor::Acceptor(Options options, UniqueFd wake) : options_(std::move(options)), wake_(std::move(wake)) {}

Acceptor::~Acceptor() { Stop(); }

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(Options options, Inherited inherited) {
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return ResourceExhausted("eventfd: {}", std::strerror(errno));
  auto acceptor = std::unique_ptr<Acceptor>(new Acceptor(std::move(options), std::move(wake)));
  MNEMO_RETURN_IF_ERROR(acceptor->Bind(std::move(inherited)));
  return acceptor;
}

absl::Status Acceptor::Bind(Inherited given) {
  std::vector<UniqueFd> inherited;
  for (UniqueFd& fd : given.passed) {
    if (const auto address = ListeningAddress(fd.get()); !address.ok()) {
      return Annotate(address.status(), fmt::format("descriptor {} of the service manager", fd.get()));
    }
    passed_.insert(fd.get());
    inherited.push_back(std::move(fd));
  }
  for (UniqueFd& fd : given.kept) {
    if (ListeningAddress(fd.get()).ok()) inherited.push_back(std::move(fd));
  }
  MNEMO_RETURN_IF_ERROR(BindAddress(&inherited));
  for (UniqueFd& fd : inherited) {
    if (passed_.contains(fd.get())) listeners_.push_back(std::move(fd));
  }
  // AcceptAll ends at the error of a socket that does not block.
  for (const UniqueFd& fd : listeners_) ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return absl::OkStatus();
}

absl::Status Acceptor::BindAddress(std::vector<UniqueFd>* inherited) {
  const auto lock = UndoAtEnd::Making();
  MNEMO_ASSIGN_OR_RETURN(listeners_, ListenAll(options_.address, options_.unix_mode, &port_, inherited));
  if (port_ > 0) {
    address_ = options_.address.substr(0, options_.address.rfind(':') + 1) + std::to_string(port_);
    return absl::OkStatus();
  }
  address_ = options_.address;
  if (passed_.contains(listeners_.front().get())) return absl::OkStatus();
  path_ = UnixSocketPath(address_).value_or("");
  // A kept socket's file has the mode of an earlier configuration.
  if (::chmod(path_.c_str(), options_.unix_mode) != 0) {
    return Unavailable("cannot listen on {}: {}", address_, std::strerror(errno));
  }
  struct stat info = {};
  if (::lstat(path_.c_str(), &info) == 0) path_inode_ = info.st_ino;
  if (!options_.leaves_file) undo_ = UndoAtEnd([path = path_] { ::unlink(path.c_str()); });
  return absl::OkStatus();
}

std::vector<int> Acceptor::own_listeners() const {
  std::vector<int> own;
  for (const UniqueFd& fd : listeners_) {
    if (!passed_.contains(fd.get())) own.push_back(fd.get());
  }
  return own;
}

absl::Status Acceptor::Start() {
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (const std::system_error& error) {
    return ResourceExhausted("starting the thread that accepts connections: {}", error.what());
  }
  return absl::OkStatus();
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    is_stopping_ = true;
    Wake();
    thread_.join();
  }
  refusing_.clear();
  listeners_.clear();
  // Another process may have taken over the path in the meantime.
  struct stat info = {};
  if (!path_.empty() && !options_.leaves_file && ::lstat(path_.c_str(), &info) == 0 &&
      info.st_ino == path_inode_) {
    ::unlink(path_.c_str());
  }
  path_.clear();
  undo_ = UndoAtEnd();
}

uint64_t Acceptor::AskForTurn() {
  Wake();
  return turns_;
}

void Acceptor::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, that is when the thread is to wake up anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void Acceptor::Loop() {
  ::pthread_setname_np(::pthread_self(), "accept");
  std::vector<pollfd> fds;
  while (true) {
    // During a shortage the listening sockets would be permanently ready.
    fds = {{wake_.get(), POLLIN, 0}};
    for (const UniqueFd& listener : listeners_) fds.push_back({is_short_ ? -1 : listener.get(), POLLIN, 0});
    int timeout_ms = is_short_ ? static_cast<int>(kShortagePause.count()) : -1;
    for (const Refused& refused : refusing_) {
      fds.push_back({refused.refusal->fd(), POLLIN, 0});
      const auto left = std::chrono::ceil<milliseconds>(refused.end - Clock::now()).count();
      const int left_ms = static_cast<int>(std::max<int64_t>(left, 0));
      timeout_ms = timeout_ms < 0 ? left_ms : std::min(timeout_ms, left_ms);
    }
    const bool was_short = is_short_;
    if (::poll(fds.data(), fds.size(), timeout_ms) < 0) continue;  // EINTR
    if (fds[0].revents != 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
    }
    if (is_stopping_) return;
    ++turns_;
    std::vector<int> readable;
    for (size_t i = 1 + listeners_.size(); i < fds.size(); ++i) {
      if (fds[i].revents != 0) readable.push_back(fds[i].fd);
    }
    StepRefused(readable);
    bool is_short = false;
    for (size_t i = 0; i < listeners_.size(); ++i) {
      if (was_short || fds[1 + i].revents != 0) is_short |= !AcceptAll(listeners_[i].get());
    }
    is_short_ = is_short;
  }
}

bool Acceptor::AcceptAll(int listener) {
  for (int i = 0; i < kAcceptsInARow; ++i) {
    UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection.valid()) {
      if (is_short_ && i == 0) options_.on_trouble("connections are accepted again");
      Take(std::move(connection), listener);
      continue;
    }
    if (errno == EAGAIN) return true;
    if (IsOfTheConnection(errno)) continue;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM: clients wait in the system's queue until the shortage is over.
    if (!is_short_) {
      options_.on_trouble(fmt::format("accepting a connection: {}; new clients wait until that has passed",
                                      std::strerror(errno)));
    }
    return false;
  }
  return true;
}

void Acceptor::Take(UniqueFd connection, int listener) {
  if (!HasRoom()) return Refuse(std::move(connection));
  if (is_refusing_) options_.on_trouble("connections are taken again");
  is_refusing_ = false;
  // Without effect on a Unix socket.
  const int on = 1;
  ::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int timeout = options_.user_timeout_ms;
  if (timeout > 0) ::setsockopt(connection.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
  struct stat info = {};
  if (::fstat(connection.get(), &info) == 0) {
    std::lock_guard lock(open_mutex_);
    open_[connection.get()] = info.st_ino;
  }
  options_.on_connection(std::move(connection), listener);
}

void Acceptor::Forget() {
  std::erase_if(open_, [](const auto& connection) {
    struct stat info = {};
    return ::fstat(connection.first, &info) != 0 || info.st_ino != connection.second;
  });
}

void Acceptor::EndConnections() {
  std::lock_guard lock(open_mutex_);
  Forget();
  for (const auto& [fd, inode] : open_) ::shutdown(fd, SHUT_WR);
}

int Acceptor::CountOpen() {
  std::lock_guard lock(open_mutex_);
  Forget();
  return static_cast<int>(open_.size());
}

bool Acceptor::HasRoom() {
  if (options_.max_connections == 0) return true;
  std::lock_guard lock(open_mutex_);
  const auto has_room = [&] { return open_.size() < static_cast<size_t>(options_.max_connections); };
  if (has_room()) return true;
  // Limits the cost of a connection storm: not every new connection checks all open ones.
  if (Clock::now() < forget_time_) return false;
  Forget();
  forget_time_ = Clock::now() + kForgetPause;
  return has_room();
}

void Acceptor::Refuse(UniqueFd connection) {
  refused_.fetch_add(1, std::memory_order_relaxed);
  if (!std::exchange(is_refusing_, true)) {
    options_.on_trouble(fmt::format("{}: {} connections are open; further ones are refused", options_.bound,
                                    options_.max_connections));
  }
  if (refusing_.size() >= kMaxRefusals) refusing_.erase(refusing_.begin());
  const std::string message =
      fmt::format("{}: {} connections are open; try again later", options_.bound, options_.max_connections);
  refusing_.push_back(
      {std::make_unique<Refusal>(std::move(connection), message), Clock::now() + kRefusalTime});
}

void Acceptor::StepRefused(const std::vector<int>& readable) {
  const Clock::time_point now = Clock::now();
  std::erase_if(refusing_, [&](const Refused& refused) {
    const bool is_ready =
        std::find(readable.begin(), readable.end(), refused.refusal->fd()) != readable.end();
    return (is_ready && !refused.refusal->Step()) || now >= refused.end;
  });
}

}  // namespace mnemo::link
