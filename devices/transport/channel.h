// One end of the connection between a worker and a memory service, as far as implementations differ: memory
// that is seen at both ends, and a way to be woken. Rings (ring.h) and links are written over it once.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/base/status.h"

namespace mnemo::transport {

inline constexpr uint64_t kCopiedBytes = 64;

// What every Write and Read begins with.
inline absl::Status CheckRange(uint64_t region_bytes, uint64_t offset_bytes, uint64_t length_bytes) {
  if (offset_bytes > region_bytes || length_bytes > region_bytes - offset_bytes) {
    return InvalidArgument("{} bytes at {} of a region of {}", length_bytes, offset_bytes, region_bytes);
  }
  return absl::OkStatus();
}

// The region is at both ends, byte for byte at the same offsets. Between shared mappings Write and Read have
// nothing to do; elsewhere each end has memory of its own, and they are one-sided puts and gets. Used by one
// thread, lost() excepted.
class Channel {
 public:
  virtual ~Channel() = default;

  // This end's view of the region. The other end may change it at any time: whatever is read is not to be
  // trusted, and is read once.
  virtual std::span<std::byte> memory() const = 0;
  // This end's bytes become the other end's. Of up to kCopiedBytes a copy is made; more stay as they are
  // until the other end has answered in some way. INVALID_ARGUMENT: outside the region.
  virtual absl::Status Write(uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // The other end's bytes become this end's, before it returns.
  virtual absl::Status Read(uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // Writes before it are seen at the other end before those after it. Read and Fence may wait for the other
  // end's Progress, where the transport has no one-sided access of its own (TCP), but no longer than two
  // seconds: then the other end counts as gone.
  virtual absl::Status Fence() = 0;
  // Lets the other end's poll of its descriptors return, where a write alone does not.
  virtual absl::Status Wake() = 0;
  // Moves along what is under way and takes wake-ups that have come. To be called between looks at memory.
  virtual void Progress() = 0;
  // Appends what to poll while asleep. False: something has come already, look again instead of sleeping.
  virtual bool PrepareSleep(std::span<pollfd, 2> fds) = 0;
  // Whether the other end is gone. Asks the system at most once every 2 ms unless `now`. Any thread.
  virtual bool lost(bool now) const = 0;
};

}  // namespace mnemo::transport
