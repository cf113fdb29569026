#include "devices/transport/handshake.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "devices/transport/rings.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::transport {
namespace {

using layout::AttachHello;

constexpr uint64_t kDataAlignment = 4096;
// Reach of 32-bit offsets in units of 64 bytes.
constexpr uint64_t kMaxRegionBytes = uint64_t{1} << 38;

uint64_t RoundUp(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

template <typename T>
T Lower(T wanted, T limit) {
  return wanted == 0 ? limit : std::min(wanted, limit);
}

template <typename T>
T Both(T wanted, T limit) {
  return wanted == 0 ? limit : static_cast<T>(wanted & limit);
}

bool IsSlots(uint32_t slots) {
  return slots >= kMinRingSlots && slots <= kMaxRingSlots && std::has_single_bit(slots);
}

// Waits for `events` until the deadline.
absl::Status WaitFor(int socket, short events, Deadline deadline) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return Unavailable("the peer did not answer in time");
    pollfd fd = {socket, events, 0};
    const int ready = ::poll(&fd, 1, static_cast<int>(std::min<int64_t>(left.count(), 1000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return Internal("poll: {}", std::strerror(errno));
  }
}

}  // namespace

RegionPlan PlanRegion(const AttachHello& granted) {
  RegionPlan plan{};
  plan.slots[RingIndex(Ring::kBulk)] = granted.bulk_slots;
  plan.slots[RingIndex(Ring::kQuery)] = granted.query_slots;
  uint64_t next = 0;
  for (int ring = 0; ring < kRings; ++ring) {
    plan.requests[ring] = next;
    next += RingBytes(plan.slots[ring]);
    plan.completions[ring] = next;
    next += RingBytes(plan.slots[ring]);
  }
  plan.data = RoundUp(next, kDataAlignment);
  plan.data_bytes = granted.region_bytes;
  plan.total_bytes = plan.data + plan.data_bytes;
  return plan;
}

absl::StatusOr<AttachHello> GrantWithin(const AttachHello& wanted, const AttachHello& limits) {
  AttachHello granted = limits;
  granted.abi_minor = std::min(wanted.abi_minor, limits.abi_minor);
  granted.ops = Both(wanted.ops, limits.ops);
  granted.formats = Both(wanted.formats, limits.formats);
  granted.score_ops = Both(wanted.score_ops, limits.score_ops);
  granted.group_ops = Both(wanted.group_ops, limits.group_ops);
  granted.select_ops = Both(wanted.select_ops, limits.select_ops);
  granted.dims = Both(wanted.dims, limits.dims);
  granted.max_group = Lower(wanted.max_group, limits.max_group);
  granted.max_k = Lower(wanted.max_k, limits.max_k);
  granted.max_tokens = Lower(wanted.max_tokens, limits.max_tokens);
  granted.max_queries = Lower(wanted.max_queries, limits.max_queries);
  granted.max_heads = Lower(wanted.max_heads, limits.max_heads);
  granted.max_indexes = Lower(wanted.max_indexes, limits.max_indexes);
  granted.quota_bytes = Lower(wanted.quota_bytes, limits.quota_bytes);
  const uint64_t region_bytes = Lower(wanted.region_bytes, limits.region_bytes);
  granted.region_bytes = std::max(region_bytes / kMinRegionBytes * kMinRegionBytes, kMinRegionBytes);
  granted.bulk_slots = std::bit_floor(std::max(Lower(wanted.bulk_slots, limits.bulk_slots), kMinRingSlots));
  granted.query_slots =
      std::bit_floor(std::max(Lower(wanted.query_slots, limits.query_slots), kMinRingSlots));
  if (wanted.placement != limits.placement) {
    return FailedPrecondition("placement: wanted {}, the service has {}", wanted.placement, limits.placement);
  }
  return granted;
}

absl::Status CheckGranted(const AttachHello& granted) {
  if (!IsSlots(granted.bulk_slots)) {
    return InvalidArgument("granted bulk_slots: {}, allowed are powers of two from {} to {}",
                           granted.bulk_slots, kMinRingSlots, kMaxRingSlots);
  }
  if (!IsSlots(granted.query_slots)) {
    return InvalidArgument("granted query_slots: {}, allowed are powers of two from {} to {}",
                           granted.query_slots, kMinRingSlots, kMaxRingSlots);
  }
  if (granted.region_bytes % kMinRegionBytes != 0 || granted.region_bytes < kMinRegionBytes ||
      granted.region_bytes > kMaxRegionBytes) {
    return InvalidArgument("granted region_bytes: {}, allowed are multiples of {} up to {}",
                           granted.region_bytes, kMinRegionBytes, kMaxRegionBytes);
  }
  return absl::OkStatus();
}

absl::Status CheckReply(const AttachHello& wanted, const AttachReply& reply) {
  if (const std::string differs = layout::CompareHello(wanted, reply.hello); !differs.empty()) {
    return FailedPrecondition("{}", differs);
  }
  if (reply.status != 0) {
    return absl::Status(static_cast<absl::StatusCode>(reply.status),
                        "the memory service refuses: " + FixedText(reply.message));
  }
  MNEMO_RETURN_IF_ERROR(CheckGranted(reply.hello));
  const uint64_t needed = PlanRegion(reply.hello).total_bytes;
  if (reply.region_length < needed) {
    return InvalidArgument("region_length: {} bytes, {} are needed", reply.region_length, needed);
  }
  return absl::OkStatus();
}

std::string FixedText(std::span<const char> field) {
  return std::string(field.data(), ::strnlen(field.data(), field.size()));
}

void SetFixedText(const std::string& text, std::span<char> field) {
  const size_t length = std::min(text.size(), field.size() - 1);
  std::memset(field.data(), 0, field.size());
  std::memcpy(field.data(), text.data(), length);
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return InvalidArgument("socket path {}: {} bytes, allowed are 1 to {}", path, path.size(),
                           sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Internal("socket: {}", std::strerror(errno));
  // connect does not wait for the service to accept, only for room in its queue.
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  return socket;
}

absl::Status SendAll(int socket, std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    MNEMO_RETURN_IF_ERROR(WaitFor(socket, POLLOUT, deadline));
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      return Unavailable("the peer closed: {}", std::strerror(errno));
    }
    if (sent > 0) bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(int socket, std::span<std::byte> bytes, Deadline deadline, UniqueFd* fd) {
  while (!bytes.empty()) {
    MNEMO_RETURN_IF_ERROR(WaitFor(socket, POLLIN, deadline));
    iovec vector = {bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return Unavailable("the peer closed before it had answered");
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      int passed;
      std::memcpy(&passed, CMSG_DATA(part), sizeof passed);
      UniqueFd owned(passed);
      if (fd != nullptr) *fd = std::move(owned);
    }
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status SendWithFd(int socket, std::span<const std::byte> bytes, int fd) {
  iovec vector = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
  }
  const ssize_t sent = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(bytes.size())) {
    return Unavailable("the peer closed or does not read: {}", std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace mnemo::transport
