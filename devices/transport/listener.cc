#include "devices/transport/listener.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "devices/transport/region.h"
#include "devices/transport/shm_channel.h"
#include "fpga/layout/layout_hash.h"

namespace mnemo::transport {
namespace {

int PeerPid(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 ? credentials.pid : 0;
}

absl::StatusOr<UniqueFd> ListenAt(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return InvalidArgument("socket path {}: {} bytes, allowed are 1 to {}", path, path.size(),
                           sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  // A service that was killed leaves its socket behind.
  if (ConnectUnix(path).ok()) return Unavailable("{}: somebody listens there already", path);
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return Internal("socket: {}", std::strerror(errno));
  // The mode that bind gives the socket; nobody can connect before listen, so none slips in between.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(socket.get(), SOMAXCONN) != 0) {
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  return socket;
}

}  // namespace

Listener::Listener(std::string path, std::string device_name, ListenerHost* host)
    : path_(std::move(path)), device_name_(std::move(device_name)), host_(host) {
  pending_.reserve(kMaxPending);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(const std::string& path,
                                                           const std::string& device_name,
                                                           ListenerHost* host) {
  auto listener = std::unique_ptr<Listener>(new Listener(path, device_name, host));
  listener->stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!listener->stop_.valid()) return Internal("eventfd: {}", std::strerror(errno));
  MNEMO_ASSIGN_OR_RETURN(listener->socket_, ListenAt(path));
  listener->thread_ = std::thread([raw = listener.get()] { raw->Run(); });
  return listener;
}

Listener::~Listener() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  MNEMO_CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
  ::unlink(path_.c_str());
}

void Listener::Run() {
  while (true) {
    pollfd fds[2 + kMaxPending];
    fds[0] = {stop_.get(), POLLIN, 0};
    // With all places taken, others wait in the system's queue.
    fds[1] = {pending_.size() < kMaxPending ? socket_.get() : -1, POLLIN, 0};
    for (size_t i = 0; i < pending_.size(); ++i) fds[2 + i] = {pending_[i].socket.get(), POLLIN, 0};
    const int ready = ::poll(fds, 2 + pending_.size(), pending_.empty() ? -1 : 100);
    if (ready < 0) continue;  // EINTR
    if (fds[0].revents != 0) return;
    const Deadline now = std::chrono::steady_clock::now();
    size_t kept = 0;
    const size_t count = pending_.size();
    for (size_t i = 0; i < count; ++i) {
      const bool over = fds[2 + i].revents != 0 ? Advance(pending_[i]) : now > pending_[i].until;
      if (over) continue;
      if (kept != i) pending_[kept] = std::move(pending_[i]);
      ++kept;
    }
    pending_.resize(kept);
    if (fds[1].revents != 0) Accept();
  }
}

void Listener::Accept() {
  UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.valid()) return;
  pending_.push_back({std::move(socket), std::chrono::steady_clock::now() + kRequestTime, {}, 0});
}

bool Listener::Advance(Pending& pending) {
  auto* const bytes = reinterpret_cast<std::byte*>(&pending.request);
  const ssize_t got =
      ::recv(pending.socket.get(), bytes + pending.got, sizeof pending.request - pending.got, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) return true;
  pending.got += static_cast<size_t>(got);
  if (pending.got < sizeof pending.request) return false;
  Answer(pending);
  return true;
}

void Listener::Answer(Pending& pending) {
  AttachReply reply{};
  reply.hello = layout::NewHello();
  SetFixedText(device_name_, reply.device_name);
  const absl::Status status = Admit(pending, reply);
  if (status.ok()) return;
  reply.status = static_cast<uint32_t>(status.code());
  SetFixedText(std::string(status.message()), reply.message);
  // Whoever does not take it has no use for it.
  (void)SendWithFd(pending.socket.get(), std::as_bytes(std::span(&reply, 1)), -1);
}

absl::Status Listener::Admit(Pending& pending, AttachReply& reply) {
  const std::string differs = layout::CompareHello(reply.hello, pending.request.hello);
  if (!differs.empty()) return FailedPrecondition("{}", differs);
  const std::string owner = FixedText(pending.request.owner);
  if (owner.empty()) return InvalidArgument("owner: empty");
  MNEMO_ASSIGN_OR_RETURN(reply.hello, host_->Grant(owner, pending.request.hello));
  const uint16_t epoch = reply.hello.epoch;
  const RegionPlan plan = PlanRegion(reply.hello);
  absl::StatusOr<Region> region = Region::Create(owner, plan.total_bytes);
  if (!region.ok()) {
    host_->Attached(epoch, nullptr);
    return region.status();
  }
  reply.region_key = region->key();
  reply.region_length = region->length_bytes();
  const int memory = region->fd();
  const int socket = pending.socket.get();
  const Attached attached = {owner, PeerPid(socket), reply.hello};
  auto link = std::make_unique<ServiceLink>(
      attached, std::make_unique<ShmChannel>(std::move(*region), std::move(pending.socket)));
  if (!SendWithFd(socket, std::as_bytes(std::span(&reply, 1)), memory).ok()) link = nullptr;
  host_->Attached(epoch, std::move(link));
  return absl::OkStatus();
}

}  // namespace mnemo::transport
