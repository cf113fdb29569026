// The part of an attachment that differs between implementations: memory visible at both ends, and wake-ups.
// Rings (rings.h) and attachments are written once over this interface.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/base/range.h"
#include "devices/base/status.h"

namespace mnemo::transport {

inline constexpr uint64_t kCopiedBytes = 64;

// Check at the start of every Write and Read. INVALID_ARGUMENT: the range is outside of the region.
inline absl::Status CheckRegionRange(uint64_t region_bytes, uint64_t offset_bytes, uint64_t length_bytes) {
  if (IsWithin(offset_bytes, length_bytes, region_bytes)) return absl::OkStatus();
  return InvalidArgument("{} bytes at {} of a region of {}", length_bytes, offset_bytes, region_bytes);
}

// One end of the connection between a worker and a memory service. The region exists at both ends, byte for
// byte at the same offsets. Over shared memory, Write and Read do nothing. Otherwise each end has its own
// memory, and they are one-sided puts and gets. Used by one thread, except lost().
class Channel {
 public:
  virtual ~Channel() = default;

  // This end's view of the region. The other end may change it at any time: read each value once, and do not
  // trust it.
  virtual std::span<std::byte> memory() const = 0;
  // Copies this end's bytes to the other end. Up to kCopiedBytes are copied at once; more must stay unchanged
  // until the other end has answered. INVALID_ARGUMENT: the range is outside the region.
  virtual absl::Status Write(uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // Copies the other end's bytes to this end before it returns.
  virtual absl::Status Read(uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // Orders writes: those before it are visible at the other end before those after it. On a transport without
  // one-sided access of its own (TCP), Read and Fence may wait for the other end's Progress. They wait at
  // most two seconds, then the other end counts as gone.
  virtual absl::Status Fence() = 0;
  // Wakes the other end from its poll of descriptors, where a write alone does not.
  virtual absl::Status Wake() = 0;
  // Advances pending transfers and consumes wake-ups that have arrived. Call it between polls of memory.
  virtual void Progress() = 0;
  // Appends the descriptors to poll while asleep. Returns false when something has arrived already: poll
  // memory again instead of sleeping.
  virtual bool PrepareSleep(std::span<pollfd, 2> fds) = 0;
  // Returns whether the other end is gone. Queries the system at most once every 2 ms unless `now`. Any
  // thread.
  virtual bool lost(bool now) const = 0;
};

}  // namespace mnemo::transport
