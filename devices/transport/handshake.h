// Handshake: hellos, limits and region plan, exchanged before rings are used.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/memory_attachment.h"
#include "proto/layout/attach.h"

namespace mnemo::transport {

inline constexpr uint32_t kMinRingSlots = 8;
inline constexpr uint32_t kMaxRingSlots = 4096;
inline constexpr uint64_t kMinRegionBytes = 4096;
// Size of owner and device names, including the terminating zero.
inline constexpr size_t kNameBytes = 64;
// First sequence number of each request ring.
inline constexpr uint32_t kFirstSeq = 1;

// First message, from the worker.
struct AttachRequest {
  // Limits that the worker asks for.
  layout::AttachHello hello;
  char owner[kNameBytes];  // zero-terminated
};
static_assert(sizeof(AttachRequest) == 192);

// The answer. When status is 0, the region's descriptor comes with it; otherwise the connection ends.
struct AttachReply {
  // Granted limits. Also set with an error, so that the worker can name the difference.
  layout::AttachHello hello;
  uint32_t status;      // absl::StatusCode
  uint32_t reserved;    // zero
  uint64_t region_key;  // of the shared region
  // Length of the whole region in bytes, including rings.
  uint64_t region_length;
  char device_name[kNameBytes];  // zero-terminated
  // Error message, zero-terminated.
  char message[168];
};
static_assert(sizeof(AttachReply) == 384);

// Offsets in the shared region: rings first, then the range that descriptors call region 0. Depends only on
// the granted hello, so both sides compute it independently.
struct RegionPlan {
  uint64_t requests[kRings];     // ring headers
  uint64_t completions[kRings];  // ring headers
  uint32_t slots[kRings];
  // First byte of region 0.
  uint64_t data;
  uint64_t data_bytes;
  uint64_t total_bytes;
};
// `granted` must come from GrantWithin or satisfy CheckGranted.
RegionPlan PlanRegion(const layout::AttachHello& granted);

// Returns the smaller of the two values in each field; masks are intersected. 0 in `wanted` means the
// service's value. Ring sizes become powers of two and region_bytes a multiple of 4,096, as PlanRegion
// requires. INVALID_ARGUMENT names a field that cannot be granted.
absl::StatusOr<layout::AttachHello> GrantWithin(const layout::AttachHello& wanted,
                                                const layout::AttachHello& limits);
// Checks, at the worker, the limits granted: they are input from a peer like any other.
absl::Status CheckGranted(const layout::AttachHello& granted);

// Checks, at the worker, the reply. Returns OK when it grants an attachment whose hello may be used, else the
// reason.
absl::Status CheckReply(const layout::AttachHello& wanted, const AttachReply& reply);

// Returns the text of a fixed-size field up to its first zero.
std::string FixedText(std::span<const char> field);
void SetFixedText(const std::string& text, std::span<char> field);

using Deadline = std::chrono::steady_clock::time_point;
// Connects to a listening socket; blocks only for room in its queue. INVALID_ARGUMENT: the path is empty or
// too long. UNAVAILABLE: there is no listener.
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path);
// SendAll and ReceiveAll block up to the deadline, for a worker that attaches. UNAVAILABLE: the peer closed,
// or the deadline has passed. `fd`, when not null, receives a passed descriptor.
absl::Status SendAll(int socket, std::span<const std::byte> bytes, Deadline deadline);
absl::Status ReceiveAll(int socket, std::span<std::byte> bytes, Deadline deadline, UniqueFd* fd);
// Sends one message with a descriptor; never blocks.
absl::Status SendWithFd(int socket, std::span<const std::byte> bytes, int fd);

}  // namespace mnemo::transport
