// A worker's end of one attachment to a memory service: it submits descriptors and polls completions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/ring.h"

namespace mnemo::transport {

// The two request rings. Each has its own completion ring.
enum class Ring : uint8_t {
  kBulk = layout::kRingBulk,
  kQuery = layout::kRingQuery,
};
inline constexpr int kRings = 2;
constexpr int RingIndex(Ring ring) { return ring == Ring::kBulk ? 0 : 1; }

// A part of a shared region: bytes[i] is byte offset_bytes + i of region number `region`, as descriptors name
// it. Begin and end are multiples of 64.
struct Area {
  std::span<uint8_t> bytes;
  uint16_t region = 0;
  uint64_t offset_bytes = 0;
};

// Properties of an established attachment.
struct AttachmentInfo {
  // Limits that the service allows for everything below.
  layout::AttachHello granted;
  // For example "memory0:cpu".
  std::string device_name;
  // The parts of the attachment's region. The worker defines this division; any descriptor may name any of
  // it.
  Area bulk_payload;
  Area query_payload;
  Area results;
};

// A worker's request for an attachment.
struct AttachOptions {
  // "unix:/path": shared memory. "ucx:host:port": UCX, where it is built in.
  std::string address;
  // Name of the worker for logs and the list of owners; at most 63 bytes.
  std::string owner;
  // Timeout of the whole handshake.
  std::chrono::milliseconds timeout{2000};
  // NewHello() with the requested values: masks, maxima, quota_bytes, region_bytes, ring sizes. 0: as much as
  // the service has.
  layout::AttachHello wanted;
  // Division of the granted region, as shares of the sum of the three.
  uint32_t bulk_payload_share = 2;
  uint32_t query_payload_share = 1;
  uint32_t results_share = 1;
};

// Used by one thread, except lost(). Once the peer is gone or has broken the protocol, every call returns
// UNAVAILABLE and the object can only be destroyed. The service then frees all indexes of this attachment.
// Payload, results and indexes may be reused only after the completion.
class MemoryAttachment {
 public:
  virtual ~MemoryAttachment() = default;

  virtual const AttachmentInfo& info() const = 0;
  // Returns the number of descriptors that may be submitted now: the ring's slots minus those in flight. A
  // descriptor is in flight from Submit until its completion is polled.
  virtual uint32_t credits(Ring ring) const = 0;
  // Sets epoch and seq, writes the whole batch and rings one doorbell. Never blocks. RESOURCE_EXHAUSTED, with
  // nothing written: the batch exceeds credits(). FAILED_PRECONDITION: an earlier Wait has timed out.
  virtual absl::Status Submit(Ring ring, std::span<layout::Descriptor> batch) = 0;
  // Takes available completions without waiting and returns their number. The results of a returned
  // completion are readable.
  virtual size_t Poll(Ring ring, std::span<layout::Completion> out) = 0;
  // Blocks until Poll would return a completion. UNAVAILABLE: the peer is gone; detected within 100 ms.
  // DEADLINE_EXCEEDED: the service hangs. The ring then accepts nothing more, and its payload and results
  // stay in use until the object is destroyed.
  virtual absl::Status Wait(Ring ring, std::chrono::nanoseconds timeout) = 0;
  // Returns whether the peer is gone. Any thread; cheap enough for once per step.
  virtual bool lost() const = 0;

  const layout::AttachHello& granted() const { return info().granted; }
  const std::string& device_name() const { return info().device_name; }
  const Area& payload_area(Ring ring) const {
    return ring == Ring::kBulk ? info().bulk_payload : info().query_payload;
  }
  const Area& result_area() const { return info().results; }
};

// Connects and exchanges hellos; blocks up to the timeout. UNAVAILABLE: no listener, or the service closed or
// did not answer in time. FAILED_PRECONDITION names the difference between the two sides, with both values.
// RESOURCE_EXHAUSTED: the service has no room for another owner. INVALID_ARGUMENT: the options or the
// service's reply are invalid.
absl::StatusOr<std::unique_ptr<MemoryAttachment>> Attach(const AttachOptions& options);

}  // namespace mnemo::transport
