#include "devices/transport/remote.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "devices/transport/channel_attachment.h"
#include "devices/transport/handshake.h"
#include "devices/transport/request_reader.h"
#include "devices/transport/rings.h"
#include "devices/transport/service_attachment.h"
#include "devices/transport/ucx/ucx_channel.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::transport {
namespace {

constexpr std::chrono::seconds kHandshakeTime{2};

// Tries `use` with each address of host:port until one works.
absl::StatusOr<UniqueFd> OpenTcp(const std::string& host_port, bool listening,
                                 const std::function<bool(int, const addrinfo&)>& use) {
  const size_t colon = host_port.rfind(':');
  if (colon == std::string::npos || colon + 1 == host_port.size()) {
    return InvalidArgument("{}: is not HOST:PORT", host_port);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = listening ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const std::string host = host_port.substr(0, colon);
  const int error = ::getaddrinfo(host.c_str(), host_port.c_str() + colon + 1, &hints, &found);
  if (error != 0) return Unavailable("{}: {}", host_port, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  std::string why = "no address";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    UniqueFd socket(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
    if (socket.valid() && use(socket.get(), *at)) return socket;
    why = errno == EINPROGRESS ? "no answer in time" : std::strerror(errno);
  }
  return Unavailable("{}: {}", host_port, why);
}

// Sets EINPROGRESS when the deadline passes. A machine that is gone does not refuse, and the system would
// retry for minutes.
bool Connect(int socket, const addrinfo& at, Deadline deadline) {
  using std::chrono::microseconds;
  const auto left =
      std::chrono::duration_cast<microseconds>(deadline - std::chrono::steady_clock::now()).count();
  if (left <= 0) {
    errno = EINPROGRESS;
    return false;
  }
  const auto bound = [socket](int64_t us) {
    const timeval time{.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    (void)::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  };
  // Bounds connect as well.
  bound(left);
  if (::connect(socket, at.ai_addr, at.ai_addrlen) != 0) return false;
  bound(0);
  return true;
}

// Also detects a machine that is gone without notice, within about two seconds.
void SetUp(int socket) {
  const auto set = [&](int level, int name, int value) {
    (void)::setsockopt(socket, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_KEEPCNT, 2);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 2000);
}

absl::Status SendAddress(int socket, const ucx::UcxChannel& channel, Deadline deadline) {
  MNEMO_ASSIGN_OR_RETURN(const std::vector<std::byte> address, channel.Address());
  const auto length = static_cast<uint32_t>(address.size());
  MNEMO_RETURN_IF_ERROR(SendAll(socket, std::as_bytes(std::span(&length, 1)), deadline));
  return SendAll(socket, address, deadline);
}

absl::StatusOr<std::vector<std::byte>> ReceiveAddress(int socket, Deadline deadline) {
  uint32_t length = 0;
  MNEMO_RETURN_IF_ERROR(ReceiveAll(socket, std::as_writable_bytes(std::span(&length, 1)), deadline, nullptr));
  if (length > ucx::UcxChannel::kMaxAddressBytes) {
    return InvalidArgument("a peer's address of {} bytes, {} are allowed", length,
                           ucx::UcxChannel::kMaxAddressBytes);
  }
  std::vector<std::byte> address(length);
  MNEMO_RETURN_IF_ERROR(ReceiveAll(socket, address, deadline, nullptr));
  return address;
}

class UcxListener final : public RemoteListener {
 public:
  UcxListener(std::string device_name, ListenerHost* host, std::unique_ptr<RequestReader> requests, int port)
      : device_name_(std::move(device_name)),
        host_(host),
        requests_(std::move(requests)),
        port_(port),
        thread_([this] {
          UniqueFd socket;
          AttachRequest request;
          while (requests_->Next(&socket, &request)) Answer(std::move(socket), request);
        }) {}
  ~UcxListener() override {
    requests_->Stop();
    thread_.join();
  }
  int port() const override { return port_; }

 private:
  void Answer(UniqueFd socket, const AttachRequest& request) {
    SetUp(socket.get());
    const Deadline deadline = std::chrono::steady_clock::now() + kHandshakeTime;
    AttachReply reply{};
    reply.hello = layout::NewHello();
    reply.hello.placement = layout::kResultsAtWorker;
    SetFixedText(device_name_, reply.device_name);
    const absl::Status status = Admit(socket, request, reply, deadline);
    if (status.ok()) return;
    reply.status = static_cast<uint32_t>(status.code());
    SetFixedText(std::string(status.message()), reply.message);
    // The result is ignored: a peer that does not receive the answer has no use for it.
    if (socket.valid()) (void)SendAll(socket.get(), std::as_bytes(std::span(&reply, 1)), deadline);
  }

  absl::Status Admit(UniqueFd& socket, const AttachRequest& request, AttachReply& reply, Deadline deadline) {
    const std::string differs = layout::CompareHello(reply.hello, request.hello);
    if (!differs.empty()) return FailedPrecondition("{}", differs);
    if (request.hello.placement != layout::kResultsAtWorker) {
      return FailedPrecondition("placement: wanted {}, between machines it is {}", request.hello.placement,
                                static_cast<int>(layout::kResultsAtWorker));
    }
    const std::string owner = FixedText(request.owner);
    if (owner.empty()) return InvalidArgument("owner: empty");
    layout::AttachHello wanted = request.hello;
    // The host's device writes results at the service.
    wanted.placement = layout::kResultsAtService;
    MNEMO_ASSIGN_OR_RETURN(reply.hello, host_->Grant(owner, wanted));
    reply.hello.placement = layout::kResultsAtWorker;
    absl::StatusOr<std::unique_ptr<ServiceAttachment>> attachment = MakeLink(owner, socket, reply, deadline);
    host_->Attached(reply.hello.epoch, attachment.ok() ? std::move(*attachment) : nullptr);
    return attachment.status();
  }

  absl::StatusOr<std::unique_ptr<ServiceAttachment>> MakeLink(const std::string& owner, UniqueFd& socket,
                                                              AttachReply& reply, Deadline deadline) {
    const RegionPlan plan = PlanRegion(reply.hello);
    reply.region_length = plan.total_bytes;
    MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<ucx::UcxChannel> channel,
                           ucx::UcxChannel::Create(plan.total_bytes));
    MNEMO_RETURN_IF_ERROR(SendAll(socket.get(), std::as_bytes(std::span(&reply, 1)), deadline));
    MNEMO_RETURN_IF_ERROR(SendAddress(socket.get(), *channel, deadline));
    MNEMO_ASSIGN_OR_RETURN(const std::vector<std::byte> peer, ReceiveAddress(socket.get(), deadline));
    MNEMO_RETURN_IF_ERROR(channel->Connect(peer, std::move(socket)));
    return std::make_unique<ServiceAttachment>(Attached{owner, 0, reply.hello}, std::move(channel));
  }

  const std::string device_name_;
  ListenerHost* const host_;
  const std::unique_ptr<RequestReader> requests_;
  const int port_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RemoteListener>> RemoteListener::Create(const std::string& host_port,
                                                                       const std::string& device_name,
                                                                       ListenerHost* host) {
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, OpenTcp(host_port, true, [](int fd, const addrinfo& at) {
                           const int on = 1;
                           (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
                           return ::bind(fd, at.ai_addr, at.ai_addrlen) == 0 && ::listen(fd, 16) == 0;
                         }));
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return Internal("getsockname: {}", std::strerror(errno));
  }
  const uint16_t port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                                    : reinterpret_cast<sockaddr_in&>(bound).sin_port;
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<RequestReader> requests, RequestReader::Create(std::move(socket)));
  return std::make_unique<UcxListener>(device_name, host, std::move(requests), ntohs(port));
}

absl::StatusOr<std::unique_ptr<MemoryAttachment>> AttachRemote(const AttachOptions& options,
                                                               const std::string& host_port) {
  const Deadline deadline = std::chrono::steady_clock::now() + options.timeout;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd socket, OpenTcp(host_port, false, [deadline](int fd, const addrinfo& at) {
                           return Connect(fd, at, deadline);
                         }));
  SetUp(socket.get());
  AttachRequest request{};
  request.hello = options.wanted;
  request.hello.placement = layout::kResultsAtWorker;
  SetFixedText(options.owner, request.owner);
  MNEMO_RETURN_IF_ERROR(SendAll(socket.get(), std::as_bytes(std::span(&request, 1)), deadline));
  AttachReply reply;
  MNEMO_RETURN_IF_ERROR(
      ReceiveAll(socket.get(), std::as_writable_bytes(std::span(&reply, 1)), deadline, nullptr));
  MNEMO_RETURN_IF_ERROR(CheckReply(options.wanted, reply));
  const RegionPlan plan = PlanRegion(reply.hello);
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<ucx::UcxChannel> channel, ucx::UcxChannel::Create(plan.total_bytes));
  MNEMO_ASSIGN_OR_RETURN(const std::vector<std::byte> peer, ReceiveAddress(socket.get(), deadline));
  // The rings are made at this end as at the other, before anything can arrive.
  for (const Ring ring : {Ring::kBulk, Ring::kQuery}) {
    const int i = RingIndex(ring);
    MakeRing(*channel, plan.requests[i], plan.slots[i], static_cast<layout::RingKind>(ring),
             reply.hello.epoch);
    MakeRing(*channel, plan.completions[i], plan.slots[i], layout::kRingCompletions, reply.hello.epoch);
  }
  MNEMO_RETURN_IF_ERROR(SendAddress(socket.get(), *channel, deadline));
  MNEMO_RETURN_IF_ERROR(channel->Connect(peer, std::move(socket)));
  return MakeChannelAttachment(options, reply.hello, FixedText(reply.device_name), std::move(channel));
}

}  // namespace mnemo::transport
