// A channel over UCX: RDMA, TCP or shared memory, by UCX's own choice. A TCP connection carries the handshake
// and tells, by being closed, that the other process or machine is gone.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/transport/channel.h"

namespace mnemo::transport::ucx {

// Both ends have memory of their own. Up to kMessageBytes go as an active message, which the other end puts
// in its place; these arrive in order, and wake a sleeper on every transport, which one-sided puts do not.
// More goes as a one-sided put, and Fence waits until it has arrived.
class UcxChannel final : public Channel {
 public:
  static constexpr uint64_t kMessageBytes = 4096;
  static constexpr uint64_t kMaxAddressBytes = 16384;

  // Zeroed memory. UNAVAILABLE: UCX cannot work here.
  static absl::StatusOr<std::unique_ptr<UcxChannel>> Create(uint64_t length_bytes);
  ~UcxChannel() override;

  // What an address begins with; UCX's address of the worker and its key to the memory follow.
  struct AddressHeader {
    uint64_t memory;  // where it begins in the process that owns it
    uint64_t length;
    uint32_t worker_bytes;
    uint32_t key_bytes;
  };

  // What the peer's Connect needs.
  absl::StatusOr<std::vector<std::byte>> Address() const;
  // `peer` comes from the peer's Address, over `socket`, which becomes the channel's. Peers are trusted to be
  // ours: UCX reads this without checking it.
  absl::Status Connect(std::span<const std::byte> peer, UniqueFd socket);

  std::span<std::byte> memory() const override;
  absl::Status Write(uint64_t offset_bytes, uint64_t length_bytes) override;
  absl::Status Read(uint64_t offset_bytes, uint64_t length_bytes) override;
  absl::Status Fence() override;
  absl::Status Wake() override;
  void Progress() override;
  bool PrepareSleep(std::span<pollfd, 2> fds) override;
  bool lost(bool now) const override;

 private:
  struct Impl;
  explicit UcxChannel(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::transport::ucx
