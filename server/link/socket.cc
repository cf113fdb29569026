#include "server/link/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "devices/base/address.h"

namespace mnemo::link {
namespace {

constexpr int kBacklog = 16;
constexpr int kCancelCheckMs = 50;
// Probes within the keepalive timeout.
constexpr int kProbes = 3;

bool IsUnix(const std::string& address) { return UnixSocketPath(address).has_value(); }

absl::StatusOr<sockaddr_un> UnixAddress(const std::string& address) {
  sockaddr_un name = {};
  const std::string_view path = UnixSocketPath(address).value_or("");
  if (path.empty() || path.size() >= sizeof name.sun_path) {
    return InvalidArgument("address {}: a socket's path has 1 to {} bytes", address,
                           sizeof name.sun_path - 1);
  }
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  return name;
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

absl::StatusOr<AddressList> Resolve(const std::string& address, int flags) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return InvalidArgument("address {}: neither unix:/path nor host:port", address);
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(host.empty() ? nullptr : host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) return Unavailable("address {}: {}", address, ::gai_strerror(error));
  return AddressList(found, &::freeaddrinfo);
}

void SetOption(int fd, int level, int option, int value) {
  // Fails only on a kernel without the option; supervision detects a silent peer anyway.
  ::setsockopt(fd, level, option, &value, sizeof value);
}

void SetUpTcp(int fd, const Keepalive& keepalive) {
  const auto seconds = [](int milliseconds) { return std::max(1, (milliseconds + 999) / 1000); };
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds(keepalive.time_ms));
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds(keepalive.timeout_ms / kProbes));
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  // Also limits how long sent data may stay unacknowledged. Counted from the last sign of life (tcp(7)).
  SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
            1000 * (seconds(keepalive.time_ms) + seconds(keepalive.timeout_ms)));
}

// Connects without blocking; returns soon after `cancelled` is set.
absl::Status ConnectTo(int fd, const sockaddr* name, socklen_t length, const std::atomic<bool>& cancelled) {
  if (::connect(fd, name, length) == 0) return absl::OkStatus();
  // A Unix socket returns EAGAIN when too many connections wait to be accepted.
  if (errno != EINPROGRESS) return absl::UnavailableError(std::strerror(errno));
  pollfd wait = {fd, POLLOUT, 0};
  while (::poll(&wait, 1, kCancelCheckMs) <= 0) {
    if (cancelled.load(std::memory_order_relaxed)) return absl::CancelledError("closed while connecting");
  }
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? absl::OkStatus() : absl::UnavailableError(std::strerror(error));
}

absl::StatusOr<UniqueFd> MakeSocket(int family, int flags) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd.valid()) return ResourceExhausted("socket: {}", std::strerror(errno));
  return fd;
}

absl::Status SetBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
    return Internal("fcntl: {}", std::strerror(errno));
  return absl::OkStatus();
}

// `mode` is that of the socket's file; nullopt leaves it to the umask.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& address, int backlog, std::optional<mode_t> mode) {
  MNEMO_ASSIGN_OR_RETURN(const sockaddr_un name, UnixAddress(address));
  const auto* generic = reinterpret_cast<const sockaddr*>(&name);
  struct stat status;
  if (::lstat(name.sun_path, &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return Unavailable("cannot listen on {}: the file is no socket", address);
    MNEMO_ASSIGN_OR_RETURN(const UniqueFd probe, MakeSocket(AF_UNIX, SOCK_NONBLOCK));
    if (::connect(probe.get(), generic, sizeof name) == 0 || errno == EAGAIN) {
      return Unavailable("cannot listen on {}: another process does", address);
    }
    ::unlink(name.sun_path);
  }
  MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(AF_UNIX, SOCK_NONBLOCK));
  // Connections are impossible before listen, so no process can connect before the file has its mode.
  if (::bind(fd.get(), generic, sizeof name) != 0 ||
      (mode.has_value() && ::chmod(name.sun_path, *mode) != 0) || ::listen(fd.get(), backlog) != 0) {
    return Unavailable("cannot listen on {}: {}", address, std::strerror(errno));
  }
  return fd;
}

// In the host's byte order.
int PortOf(const sockaddr* address) {
  return ntohs(address->sa_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(address)->sin6_port
                                              : reinterpret_cast<const sockaddr_in*>(address)->sin_port);
}

int PortOf(int fd) {
  sockaddr_storage name = {};
  socklen_t length = sizeof name;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return 0;
  return PortOf(reinterpret_cast<const sockaddr*>(&name));
}

bool IsAnyAddress(const addrinfo& entry) {
  if (entry.ai_family == AF_INET6) {
    return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(entry.ai_addr)->sin6_addr);
  }
  return reinterpret_cast<const sockaddr_in*>(entry.ai_addr)->sin_addr.s_addr == htonl(INADDR_ANY);
}

// Binds and listens at one address, with `port` unless that is 0. Returns an errno, or 0.
int ListenAt(const sockaddr* address, socklen_t length, int port, UniqueFd* fd) {
  sockaddr_storage name = {};
  std::memcpy(&name, address, length);
  if (port != 0) {
    (name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port
                                : reinterpret_cast<sockaddr_in&>(name).sin_port) =
        htons(static_cast<uint16_t>(port));
  }
  *fd = UniqueFd(::socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd->valid()) return errno;
  SetOption(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // [::] also accepts IPv4; no other IPv6 address does.
  if (name.ss_family == AF_INET6) SetOption(fd->get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&name), length) != 0 ||
      ::listen(fd->get(), SOMAXCONN) != 0) {
    return errno;
  }
  return 0;
}

// Moves the socket out that listens at this address of the network; `port` 0: at any port.
UniqueFd TakeListener(const sockaddr* address, int port, std::vector<UniqueFd>* inherited) {
  const auto is_same = [&](const UniqueFd& fd) {
    sockaddr_storage name = {};
    socklen_t length = sizeof name;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) return false;
    if (name.ss_family != address->sa_family || (port != 0 && PortOf(fd.get()) != port)) return false;
    if (name.ss_family == AF_INET6) {
      return std::memcmp(&reinterpret_cast<const sockaddr_in6&>(name).sin6_addr,
                         &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, sizeof(in6_addr)) == 0;
    }
    return name.ss_family == AF_INET && reinterpret_cast<const sockaddr_in&>(name).sin_addr.s_addr ==
                                            reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr;
  };
  if (inherited == nullptr) return UniqueFd();
  const auto found = std::find_if(inherited->begin(), inherited->end(), is_same);
  if (found == inherited->end()) return UniqueFd();
  UniqueFd fd = std::move(*found);
  inherited->erase(found);
  return fd;
}

// Moves the socket out whose file is `name`. One whose file is gone cannot be reached any more.
UniqueFd TakeUnixListener(const sockaddr_un& name, std::vector<UniqueFd>* inherited) {
  struct stat info = {};
  if (inherited == nullptr || ::lstat(name.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return {};
  for (auto fd = inherited->begin(); fd != inherited->end(); ++fd) {
    sockaddr_un bound = {};
    socklen_t length = sizeof bound;
    if (::getsockname(fd->get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) continue;
    if (bound.sun_family != AF_UNIX || std::strcmp(bound.sun_path, name.sun_path) != 0) continue;
    UniqueFd taken = std::move(*fd);
    inherited->erase(fd);
    return taken;
  }
  return {};
}

// A machine without IPv6 still resolves names to IPv6 addresses.
bool IsAbsent(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT; }

}  // namespace

absl::StatusOr<UniqueFd> Connect(const std::string& address, const Keepalive& keepalive,
                                 const std::atomic<bool>& cancelled) {
  if (IsUnix(address)) {
    MNEMO_ASSIGN_OR_RETURN(const sockaddr_un name, UnixAddress(address));
    MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(AF_UNIX, SOCK_NONBLOCK));
    const absl::Status status =
        ConnectTo(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name, cancelled);
    if (!status.ok()) return Annotate(status, address);
    MNEMO_RETURN_IF_ERROR(SetBlocking(fd.get()));
    return fd;
  }
  MNEMO_ASSIGN_OR_RETURN(const AddressList found, Resolve(address, AI_ADDRCONFIG));
  absl::Status last = Unavailable("no address");
  for (const addrinfo* entry = found.get(); entry != nullptr; entry = entry->ai_next) {
    MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(entry->ai_family, SOCK_NONBLOCK));
    last = ConnectTo(fd.get(), entry->ai_addr, entry->ai_addrlen, cancelled);
    if (absl::IsCancelled(last)) break;
    if (!last.ok()) continue;
    SetUpTcp(fd.get(), keepalive);
    MNEMO_RETURN_IF_ERROR(SetBlocking(fd.get()));
    return fd;
  }
  return Annotate(last, address);
}

absl::StatusOr<UniqueFd> Listen(const std::string& address) {
  if (IsUnix(address)) return ListenUnix(address, kBacklog, std::nullopt);
  MNEMO_ASSIGN_OR_RETURN(const AddressList found, Resolve(address, AI_PASSIVE));
  const addrinfo& first = *found;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, MakeSocket(first.ai_family, SOCK_NONBLOCK));
  // Lets a restarted worker take its port at once; two listeners still exclude each other.
  SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), first.ai_addr, first.ai_addrlen) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return Unavailable("cannot listen on {}: {}", address, std::strerror(errno));
  }
  return fd;
}

absl::StatusOr<std::vector<UniqueFd>> ListenAll(const std::string& address, mode_t unix_mode, int* port,
                                                std::vector<UniqueFd>* inherited) {
  *port = 0;
  std::vector<UniqueFd> sockets;
  if (IsUnix(address)) {
    MNEMO_ASSIGN_OR_RETURN(const sockaddr_un name, UnixAddress(address));
    if (UniqueFd fd = TakeUnixListener(name, inherited); fd.valid()) {
      sockets.push_back(std::move(fd));
      return sockets;
    }
    MNEMO_ASSIGN_OR_RETURN(sockets.emplace_back(), ListenUnix(address, SOMAXCONN, unix_mode));
    return sockets;
  }
  MNEMO_ASSIGN_OR_RETURN(const AddressList found, Resolve(address, AI_PASSIVE));
  std::vector<std::pair<const sockaddr*, socklen_t>> names;
  sockaddr_in6 any = {};
  any.sin6_family = AF_INET6;
  any.sin6_port = reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_port;
  const bool is_any = IsAnyAddress(*found);
  if (is_any) names.emplace_back(reinterpret_cast<const sockaddr*>(&any), sizeof any);
  for (const addrinfo* entry = found.get(); entry != nullptr; entry = entry->ai_next) {
    names.emplace_back(entry->ai_addr, entry->ai_addrlen);
  }
  int error = 0;
  for (const auto& [name, length] : names) {
    const int wanted_port = *port != 0 ? *port : PortOf(name);
    UniqueFd fd = TakeListener(name, wanted_port, inherited);
    error = fd.valid() ? 0 : ListenAt(name, length, *port, &fd);
    if (error == 0) {
      sockets.push_back(std::move(fd));
      *port = PortOf(sockets.front().get());
      if (is_any) break;
    } else if (!IsAbsent(error)) {
      return Unavailable("cannot listen on {}: {}", address, std::strerror(error));
    }
  }
  if (sockets.empty()) return Unavailable("cannot listen on {}: {}", address, std::strerror(error));
  return sockets;
}

absl::StatusOr<std::string> ListeningAddress(int fd) {
  int type = 0, listens = 0;
  socklen_t size = sizeof(int);
  sockaddr_storage name = {};
  socklen_t length = sizeof name;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || type != SOCK_STREAM ||
      listens == 0 || ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    return InvalidArgument("it is no listening stream socket");
  }
  if (name.ss_family == AF_UNIX) {
    return "unix:" + std::string(reinterpret_cast<const sockaddr_un&>(name).sun_path);
  }
  char host[NI_MAXHOST] = "";
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&name), length, host, sizeof host, nullptr, 0,
                    NI_NUMERICHOST) != 0) {
    return InvalidArgument("it is no socket of TCP or Unix");
  }
  return name.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, PortOf(fd))
                                    : fmt::format("{}:{}", host, PortOf(fd));
}

absl::StatusOr<UniqueFd> Accept(int listener, const Keepalive& keepalive) {
  sockaddr_storage name = {};
  socklen_t length = sizeof name;
  UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&name), &length, SOCK_CLOEXEC));
  if (!fd.valid()) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return NotFound("no connection waits");
    return ResourceExhausted("accept: {}", std::strerror(errno));
  }
  if (name.ss_family != AF_UNIX) SetUpTcp(fd.get(), keepalive);
  return fd;
}

}  // namespace mnemo::link
