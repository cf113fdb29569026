#include "devices/transport/shm_channel.h"

#include <chrono>
#include <utility>

#include "devices/transport/peer_socket.h"

namespace mnemo::transport {
namespace {

constexpr int64_t kLookEveryNs = 2'000'000;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ShmChannel::ShmChannel(Region region, UniqueFd socket)
    : region_(std::move(region)), socket_(std::move(socket)) {}

absl::Status ShmChannel::CheckRange(uint64_t offset_bytes, uint64_t length_bytes) const {
  const uint64_t size = region_.length_bytes();
  if (offset_bytes > size || length_bytes > size - offset_bytes) {
    return InvalidArgument("bytes {} to {} of a region of {}", offset_bytes, offset_bytes + length_bytes,
                           size);
  }
  return absl::OkStatus();
}

absl::Status ShmChannel::Write(uint64_t offset_bytes, uint64_t length_bytes) {
  return CheckRange(offset_bytes, length_bytes);
}

absl::Status ShmChannel::Read(uint64_t offset_bytes, uint64_t length_bytes) {
  return CheckRange(offset_bytes, length_bytes);
}

absl::Status ShmChannel::Fence() { return absl::OkStatus(); }

absl::Status ShmChannel::Wake() {
  absl::Status status = SendWake(socket_.get());
  if (!status.ok()) lost_.store(true, std::memory_order_relaxed);
  return status;
}

void ShmChannel::Progress() {}

bool ShmChannel::PrepareSleep(std::span<pollfd, 2> fds) {
  fds[0] = {socket_.get(), POLLIN | POLLRDHUP, 0};
  fds[1] = {-1, 0, 0};
  if (!DrainWakes(socket_.get())) lost_.store(true, std::memory_order_relaxed);
  return !lost_.load(std::memory_order_relaxed);
}

bool ShmChannel::lost(bool now) const {
  if (lost_.load(std::memory_order_relaxed)) return true;
  const int64_t now_ns = NowNs();
  if (!now && now_ns - looked_at_ns_.load(std::memory_order_relaxed) < kLookEveryNs) return false;
  looked_at_ns_.store(now_ns, std::memory_order_relaxed);
  if (PeerClosed(socket_.get())) lost_.store(true, std::memory_order_relaxed);
  return lost_.load(std::memory_order_relaxed);
}

}  // namespace mnemo::transport
