// The service's end of one attachment: it takes descriptors and writes completions.
#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/transport/channel.h"
#include "devices/transport/handshake.h"
#include "devices/transport/rings.h"

namespace mnemo::transport {

struct Attached {
  // Name that the worker gives itself.
  std::string owner;
  // Process id of the worker; 0 when it is on another machine.
  int pid = 0;
  layout::AttachHello granted;
};

// Used by one thread. Whatever the worker does to the shared memory, no call reads or writes outside of it. A
// broken index ends only this attachment.
class ServiceAttachment {
 public:
  // The channel's memory must be zeroed and at least PlanRegion(granted).total_bytes long; makes the rings in
  // it.
  ServiceAttachment(Attached attached, std::unique_ptr<Channel> channel);

  const Attached& attached() const { return attached_; }
  // The range that descriptors call region 0. The worker may change it at any time.
  std::span<uint8_t> data() const;

  // Copies available descriptors: at most out.size(), and no more than the completion ring has room for, so
  // that Complete never waits. UNAVAILABLE: the worker is gone or broke its ring.
  absl::StatusOr<uint32_t> Take(Ring ring, std::span<layout::Descriptor> out);
  // Makes result bytes in data() visible at the worker. Call it before their completion.
  absl::Status PushResults(uint64_t offset_bytes, uint64_t length_bytes);
  // Writes completions in any order, no more than descriptors were taken. Rings one doorbell.
  absl::Status Complete(Ring ring, std::span<const layout::Completion> completions);
  // Number of descriptors taken and not yet completed.
  uint32_t under_way(Ring ring) const { return under_way_[RingIndex(ring)]; }

  // Returns whether Take would return descriptors or an error. A worker that submits more than its credits is
  // served once it has taken its completions, but causes no wake-up.
  bool Ready(Ring ring) const;
  void Progress() { channel_->Progress(); }
  // Marks both request rings. Sequence for sleeping: SetAsleep(true), PrepareSleep, Ready once more, poll.
  // After waking: SetAsleep(false).
  void SetAsleep(bool asleep);
  bool PrepareSleep(std::span<pollfd, 2> fds) { return channel_->PrepareSleep(fds); }
  bool lost(bool now = false) const { return channel_->lost(now); }

 private:
  // Returns how many completions may still be reserved, or a smaller number (see RingProducer::Free).
  absl::StatusOr<uint32_t> Room(int i, uint32_t enough) const;

  const Attached attached_;
  const RegionPlan plan_;
  const std::unique_ptr<Channel> channel_;
  RingConsumer requests_[kRings];
  RingProducer completions_[kRings];
  uint32_t under_way_[kRings] = {};
};

}  // namespace mnemo::transport
