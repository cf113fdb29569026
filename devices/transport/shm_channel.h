// A channel between two processes of one machine: both map one region, and a Unix socket carries the
// wake-ups and tells, by being closed, that the other process is gone.
#pragma once

#include <atomic>

#include "devices/base/unique_fd.h"
#include "devices/transport/channel.h"
#include "devices/transport/region.h"

namespace mnemo::transport {

// Wake-ups are single bytes on the socket, so that one poll sees both a wake-up and the peer's end, of any
// number of peers. No peer can make a call here block: each is non-blocking by itself, not by a mode of the
// descriptor, which the peer could change.
class ShmChannel final : public Channel {
 public:
  // `socket` is connected to the holder of the other end; from now on nothing else uses it.
  ShmChannel(Region region, UniqueFd socket);

  std::span<std::byte> memory() const override { return region_.bytes(); }
  absl::Status Write(uint64_t offset_bytes, uint64_t length_bytes) override;
  absl::Status Read(uint64_t offset_bytes, uint64_t length_bytes) override;
  absl::Status Fence() override;
  absl::Status Wake() override;
  void Progress() override;
  bool PrepareSleep(std::span<pollfd, 2> fds) override;
  bool lost(bool now) const override;

 private:
  absl::Status CheckRange(uint64_t offset_bytes, uint64_t length_bytes) const;

  const Region region_;
  const UniqueFd socket_;
  mutable std::atomic<bool> lost_ = false;
  mutable std::atomic<int64_t> looked_at_ns_ = 0;
};

}  // namespace mnemo::transport
