// A channel over UCX: RDMA, TCP or shared memory, as UCX selects. A TCP connection carries the handshake, and
// its close reports that the other process or machine is gone.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/transport/channel.h"

namespace mnemo::transport::ucx {

// Each end has its own memory. Transfers of up to kMessageBytes are active messages, which the other end
// copies into place. These arrive in order and wake a sleeper on every transport, which one-sided puts do
// not. Larger transfers are one-sided puts; Fence waits until they have arrived.
class UcxChannel final : public Channel {
 public:
  static constexpr uint64_t kMessageBytes = 4096;
  static constexpr uint64_t kMaxAddressBytes = 16384;

  // Creates a channel with zeroed memory. UNAVAILABLE: UCX cannot work on this machine.
  static absl::StatusOr<std::unique_ptr<UcxChannel>> Create(uint64_t length_bytes);
  ~UcxChannel() override;

  // Header of an address. UCX's worker address and its key to the memory follow.
  struct AddressHeader {
    // Start address of the memory in the process that owns it.
    uint64_t memory;
    uint64_t length;
    uint32_t worker_bytes;
    uint32_t key_bytes;
  };

  // Returns the data that the peer's Connect needs.
  absl::StatusOr<std::vector<std::byte>> Address() const;
  // `peer` is the result of the peer's Address, received over `socket`, which the channel then owns. The peer
  // must be trusted: UCX reads this data without checking it.
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
