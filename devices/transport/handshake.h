// What is exchanged before rings are used: hellos, limits, and where everything lies in the region.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/memory_link.h"
#include "proto/layout/attach.h"

namespace mnemo::transport {

inline constexpr uint32_t kMinRingSlots = 8;
inline constexpr uint32_t kMaxRingSlots = 4096;
inline constexpr uint64_t kMinRegionBytes = 4096;
inline constexpr size_t kNameBytes = 64;  // of owners and devices, with the zero at the end
inline constexpr uint32_t kFirstSeq = 1;  // of each request ring

// First message, from the worker.
struct AttachRequest {
  layout::AttachHello hello;  // wanted
  char owner[kNameBytes];     // ends with a zero
};
static_assert(sizeof(AttachRequest) == 192);

// The answer. With it comes the region's descriptor when status is 0; otherwise the connection ends.
struct AttachReply {
  layout::AttachHello hello;     // granted; also with an error, so that the worker can name what differs
  uint32_t status;               // absl::StatusCode
  uint32_t reserved;             // zero
  uint64_t region_key;           // of the shared region
  uint64_t region_length;        // all of it, rings included
  char device_name[kNameBytes];  // ends with a zero
  char message[168];             // of an error; ends with a zero
};
static_assert(sizeof(AttachReply) == 384);

// Where things lie in the shared region: rings first, then what descriptors call region 0. A function of the
// granted hello, so both sides know it without being told.
struct RegionPlan {
  uint64_t requests[kRings];     // ring headers
  uint64_t completions[kRings];  // ring headers
  uint32_t slots[kRings];
  uint64_t data;  // first byte of region 0
  uint64_t data_bytes;
  uint64_t total_bytes;
};
RegionPlan PlanRegion(const layout::AttachHello& granted);

// The smaller of the two in each field; 0 in `wanted` takes what the service has; masks are intersected. Ring
// sizes become powers of two, region_bytes a multiple of 4,096, so that PlanRegion takes it. INVALID_ARGUMENT
// names a field that cannot be granted.
absl::StatusOr<layout::AttachHello> GrantWithin(const layout::AttachHello& wanted,
                                                const layout::AttachHello& limits);
// What a worker is granted is looked at like anything else that comes from a peer.
absl::Status CheckGranted(const layout::AttachHello& granted);

// Of a worker: why the reply is no attachment, or OK when it is one whose hello may be used.
absl::Status CheckReply(const layout::AttachHello& wanted, const AttachReply& reply);

// The text of a fixed field, up to its first zero.
std::string FixedText(std::span<const char> field);
void SetFixedText(const std::string& text, std::span<char> field);

// Blocking up to the deadline, for a worker that attaches. `fd`, when not null, takes a passed descriptor.
using Deadline = std::chrono::steady_clock::time_point;
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path);
absl::Status SendAll(int socket, std::span<const std::byte> bytes, Deadline deadline);
absl::Status ReceiveAll(int socket, std::span<std::byte> bytes, Deadline deadline, UniqueFd* fd);
// One message with a descriptor, never blocking.
absl::Status SendWithFd(int socket, std::span<const std::byte> bytes, int fd);

}  // namespace mnemo::transport
