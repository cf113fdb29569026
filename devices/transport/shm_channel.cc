#include "devices/transport/shm_channel.h"

#include <utility>

namespace mnemo::transport {
ShmChannel::ShmChannel(Region region, UniqueFd socket)
    : region_(std::move(region)), socket_(std::move(socket)) {}

absl::Status ShmChannel::Write(uint64_t offset_bytes, uint64_t length_bytes) {
  return CheckRegionRange(region_.length_bytes(), offset_bytes, length_bytes);
}

absl::Status ShmChannel::Read(uint64_t offset_bytes, uint64_t length_bytes) {
  return CheckRegionRange(region_.length_bytes(), offset_bytes, length_bytes);
}

absl::Status ShmChannel::Fence() { return absl::OkStatus(); }

absl::Status ShmChannel::Wake() { return socket_.Wake(); }

void ShmChannel::Progress() {}

bool ShmChannel::PrepareSleep(std::span<pollfd, 2> fds) {
  fds[0] = {socket_.fd(), POLLIN | POLLRDHUP, 0};
  fds[1] = {-1, 0, 0};
  return socket_.Drain();
}

bool ShmChannel::lost(bool now) const { return socket_.lost(now); }

}  // namespace mnemo::transport
