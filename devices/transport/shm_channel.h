// A channel between two processes of one machine. Both map one region. A Unix socket carries the wake-ups,
// and its close reports that the other process is gone.
#pragma once

#include "devices/base/unique_fd.h"
#include "devices/transport/channel.h"
#include "devices/transport/peer_socket.h"
#include "devices/transport/region.h"

namespace mnemo::transport {

// Wake-ups are single bytes on the socket, so one poll sees both wake-ups and closed peers, for any number of
// peers. No peer can make a call here block.
class ShmChannel final : public Channel {
 public:
  // `socket` is connected to the holder of the other end; the channel has exclusive use of it.
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
  const Region region_;
  PeerSocket socket_;
};

}  // namespace mnemo::transport
