#include "devices/energy/reading_server.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "devices/base/clock.h"
#include "devices/base/service_manager.h"

namespace mnemo::energy {
namespace {

constexpr int kBacklog = 16;
constexpr mode_t kSocketMode = 0660;
constexpr int64_t kMillisecondNs = 1'000'000;

absl::Status SetGroup(const std::string& path, const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  errno = 0;
  const group* const found = ::getgrnam(name.c_str());
  if (found == nullptr) return InvalidArgument("--socket-group: there is no group {}", name);
  if (::chown(path.c_str(), static_cast<uid_t>(-1), found->gr_gid) != 0) {
    return InvalidArgument("--socket-group: {}: {}", name, std::strerror(errno));
  }
  return absl::OkStatus();
}

bool SomeoneListens(const sockaddr_un& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
         errno == EAGAIN;
}

}  // namespace

absl::StatusOr<UniqueFd> ListenForReaders(const std::string& path, const std::string& group) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("energy.socket: the path has {} bytes, allowed are 1 to {}", path.size(),
                           sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Unavailable("{}: {}", path, std::strerror(errno));
  struct stat info = {};
  if (::lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode))
      return InvalidArgument("energy.socket: {} is a file that is no socket", path);
    if (SomeoneListens(address)) return Unavailable("{}: another process listens there", path);
    ::unlink(path.c_str());
  }
  // Nobody can connect before the file has its mode and group: the socket does not listen yet.
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return InvalidArgument("energy.socket: {}: {}", path, std::strerror(errno));
  }
  MNEMO_RETURN_IF_ERROR(SetGroup(path, group));
  if (::chmod(path.c_str(), kSocketMode) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  return fd;
}

absl::StatusOr<UniqueFd> TakeSystemdSocket() {
  MNEMO_ASSIGN_OR_RETURN(std::vector<PassedDescriptor> passed, TakePassedDescriptors());
  if (passed.empty()) return UniqueFd();
  if (passed.size() > 1) {
    return InvalidArgument("systemd has passed {} sockets, one is used", passed.size());
  }
  UniqueFd fd = std::move(passed.front().fd);
  int type = 0, listens = 0, domain = 0;
  socklen_t size = sizeof(int);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &type, &size);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  if (domain != AF_UNIX || type != SOCK_SEQPACKET || listens == 0) {
    return InvalidArgument("systemd has passed another socket than one of ListenSequentialPacket=/PATH");
  }
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return fd;
}

ReadingServer::ReadingServer(EnergySource* source, UniqueFd listener, ReadingServerOptions options)
    : source_(source), listener_(std::move(listener)), options_(std::move(options)) {}

void ReadingServer::Serve(const Round& round) {
  intervals_.clear();
  source_->Sample(round, &intervals_);
  for (const EnergyInterval& interval : intervals_) {
    Total& total = totals_[{interval.device.Label(), interval.device.source}];
    total.joules += interval.joules;
    total.end_ns = interval.end_ns;
  }
  Readings readings;
  readings.instance = options_.instance;
  for (const MeterState& state : source_->States()) {
    if (readings.meters.size() == kMaxReadings) break;
    Reading reading;
    reading.meter.device = state.device;
    reading.meter.is_up = state.is_up;
    std::copy(std::begin(state.dropped), std::end(state.dropped), reading.meter.dropped);
    const auto total = totals_.find({state.device.Label(), state.device.source});
    if (total != totals_.end()) {
      reading.end_ns = total->second.end_ns;
      reading.tenths = static_cast<uint64_t>(std::floor(total->second.joules / kServedJoules));
    }
    readings.meters.push_back(std::move(reading));
  }
  const std::string message = EncodeReadings(readings);
  std::erase_if(clients_, [&](const UniqueFd& client) {
    const ssize_t sent = ::send(client.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ENOBUFS;
  });
}

void ReadingServer::Attend(int timeout_ms, int stop_fd) {
  std::vector<pollfd> waits = {{listener_.get(), POLLIN, 0}, {stop_fd, POLLIN, 0}};
  for (const UniqueFd& client : clients_) waits.push_back({client.get(), POLLIN, 0});
  if (::poll(waits.data(), waits.size(), timeout_ms) <= 0) return;
  // Clients have nothing to say: one that sends is no client of ours, and the end of one shows as POLLIN too.
  std::erase_if(clients_, [&](const UniqueFd& client) {
    return std::any_of(waits.begin() + 2, waits.end(),
                       [&](const pollfd& wait) { return wait.fd == client.get() && wait.revents != 0; });
  });
  if (waits[0].revents == 0) return;
  while (true) {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client.valid()) return;
    if (clients_.size() < options_.max_clients) {
      clients_.push_back(std::move(client));
    } else {
      options_.log(
          fmt::format("a client was closed: {} are connected, the most there may be", options_.max_clients));
    }
  }
}

void ReadingServer::Run(int stop_fd) {
  CpuTimesFile cpu_times;
  int64_t next_ns = NowNs();
  pollfd stop = {stop_fd, POLLIN, 0};
  while (::poll(&stop, 1, 0) == 0) {
    const int64_t now_ns = NowNs();
    if (now_ns >= next_ns) {
      const absl::StatusOr<CpuTimes> cpu = cpu_times.Read();
      Serve({.now_ns = now_ns, .cpu = cpu.value_or(CpuTimes())});
      next_ns = std::max(next_ns + options_.interval_ns, now_ns);
    }
    Attend(static_cast<int>(std::max<int64_t>(0, (next_ns - NowNs()) / kMillisecondNs + 1)), stop_fd);
  }
}

}  // namespace mnemo::energy
