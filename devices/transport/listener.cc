#include "devices/transport/listener.h"

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
#include "proto/layout/layout_hash.h"

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
  // A killed service leaves its socket behind.
  if (ConnectUnix(path).ok()) return Unavailable("{}: somebody listens there already", path);
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Internal("socket: {}", std::strerror(errno));
  // bind sets the mode of the socket. Connections are impossible before listen, so no process can connect
  // before the mode is set.
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(socket.get(), SOMAXCONN) != 0) {
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  return socket;
}

}  // namespace

Listener::Listener(std::string path, std::string device_name, ListenerHost* host,
                   std::unique_ptr<RequestReader> requests)
    : path_(std::move(path)),
      device_name_(std::move(device_name)),
      host_(host),
      requests_(std::move(requests)),
      thread_([this] {
        UniqueFd socket;
        AttachRequest request;
        while (requests_->Next(&socket, &request)) Answer(std::move(socket), request);
      }) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(const std::string& path,
                                                           const std::string& device_name,
                                                           ListenerHost* host) {
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, ListenAt(path));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<RequestReader> requests, RequestReader::Create(std::move(socket)));
  return std::unique_ptr<Listener>(new Listener(path, device_name, host, std::move(requests)));
}

Listener::~Listener() {
  requests_->Stop();
  thread_.join();
  ::unlink(path_.c_str());
}

void Listener::Answer(UniqueFd socket, const AttachRequest& request) {
  AttachReply reply{};
  reply.hello = layout::NewHello();
  SetFixedText(device_name_, reply.device_name);
  const absl::Status status = Admit(socket, request, reply);
  if (status.ok()) return;
  reply.status = static_cast<uint32_t>(status.code());
  SetFixedText(std::string(status.message()), reply.message);
  // The result is ignored: a peer that does not receive the answer has no use for it.
  (void)SendWithFd(socket.get(), std::as_bytes(std::span(&reply, 1)), -1);
}

absl::Status Listener::Admit(UniqueFd& socket, const AttachRequest& request, AttachReply& reply) {
  const std::string differs = layout::CompareHello(reply.hello, request.hello);
  if (!differs.empty()) return FailedPrecondition("{}", differs);
  const std::string owner = FixedText(request.owner);
  if (owner.empty()) return InvalidArgument("owner: empty");
  MNEMO_ASSIGN_OR_RETURN(reply.hello, host_->Grant(owner, request.hello));
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
  const int peer = socket.get();
  const Attached attached = {owner, PeerPid(peer), reply.hello};
  auto attachment = std::make_unique<ServiceAttachment>(
      attached, std::make_unique<ShmChannel>(std::move(*region), std::move(socket)));
  if (!SendWithFd(peer, std::as_bytes(std::span(&reply, 1)), memory).ok()) attachment = nullptr;
  host_->Attached(epoch, std::move(attachment));
  return absl::OkStatus();
}

}  // namespace mnemo::transport
