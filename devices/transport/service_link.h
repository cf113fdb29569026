// The service's end of one attachment: it takes descriptors and gives completions.
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
  std::string owner;  // as the worker calls itself
  int pid = 0;        // of the worker; 0 when it is on another machine
  layout::AttachHello granted;
};

// Used by one thread. Whatever the worker does to the shared memory, no call reads or writes outside it, and
// a broken index ends this attachment alone.
class ServiceLink {
 public:
  // The channel's memory is at least PlanRegion(granted).total_bytes long and zero; makes the rings in it.
  ServiceLink(Attached attached, std::unique_ptr<Channel> channel);

  const Attached& attached() const { return attached_; }
  // What descriptors call region 0. The worker may change it at any time.
  std::span<uint8_t> data() const;

  // Copies descriptors that have come, at most out.size() and no more than completions have room for, so that
  // Complete never waits. UNAVAILABLE: the worker is gone or broke its ring.
  absl::StatusOr<uint32_t> Take(Ring ring, std::span<layout::Descriptor> out);
  // Makes bytes of data() that results were written to visible at the worker. Before their completion.
  absl::Status PushResults(uint64_t offset_bytes, uint64_t length_bytes);
  // In any order; no more than were taken. One doorbell.
  absl::Status Complete(Ring ring, std::span<const layout::Completion> completions);
  // Taken and not completed.
  uint32_t under_way(Ring ring) const { return under_way_[RingIndex(ring)]; }

  // Whether Take would give something, or an error. A worker that submits more than its credits is served
  // when it has taken its completions, but nobody is woken for it.
  bool Ready(Ring ring) const;
  void Progress() { channel_->Progress(); }
  // Both request rings; then PrepareSleep; then Ready once more; then poll. Awake again: SetAsleep(false).
  void SetAsleep(bool asleep);
  bool PrepareSleep(std::span<pollfd, 2> fds) { return channel_->PrepareSleep(fds); }
  bool lost(bool now = false) const { return channel_->lost(now); }

 private:
  // Completions that may still be promised, or fewer (see RingProducer::Free).
  absl::StatusOr<uint32_t> Room(int i, uint32_t enough) const;

  const Attached attached_;
  const RegionPlan plan_;
  const std::unique_ptr<Channel> channel_;
  RingConsumer requests_[kRings];
  RingProducer completions_[kRings];
  uint32_t under_way_[kRings] = {};
};

}  // namespace mnemo::transport
