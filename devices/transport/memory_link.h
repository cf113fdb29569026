// A worker's end of one attachment to a memory service: it pushes descriptors and takes completions.
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

// The two request rings. Each has a completion ring of its own.
enum class Ring : uint8_t {
  kBulk = layout::kRingBulk,
  kQuery = layout::kRingQuery,
};
inline constexpr int kRings = 2;
constexpr int RingIndex(Ring ring) { return ring == Ring::kBulk ? 0 : 1; }

// A part of a shared region: bytes[i] is byte offset_bytes + i of region number `region`, as descriptors name
// it. Begins and ends at a multiple of 64.
struct Area {
  std::span<uint8_t> bytes;
  uint16_t region = 0;
  uint64_t offset_bytes = 0;
};

struct LinkInfo {
  layout::AttachHello granted;  // what the service allows: the limits of all that follows
  std::string device_name;      // "memory0:cpu"
  // The attachment's region, divided. Who divides is the worker: any descriptor may name any of it.
  Area bulk_payload;
  Area query_payload;
  Area results;
};

struct LinkOptions {
  std::string address;  // "unix:/path": shared memory. "ucx:host:port": through UCX, where it is built in.
  std::string owner;    // who attaches, for logs and the list of owners; at most 63 bytes
  std::chrono::milliseconds timeout{2000};  // of the whole handshake
  // NewHello() with what is asked for: masks, greatest values, quota_bytes, region_bytes, ring sizes. 0 = as
  // much as there is.
  layout::AttachHello wanted;
  // How the granted region is divided, in parts of the sum of the three.
  uint32_t bulk_payload_share = 2;
  uint32_t query_payload_share = 1;
  uint32_t results_share = 1;
};

// Used by one thread, lost() excepted. When the peer is gone or has broken the protocol, every call says
// UNAVAILABLE from then on, and the link is good for nothing but to be destroyed; the service then frees all
// indexes of this attachment. Payload, results and indexes may be used again only after the completion.
class MemoryLink {
 public:
  virtual ~MemoryLink() = default;

  virtual const LinkInfo& info() const = 0;
  // Descriptors that may be submitted now: the ring's slots less what is under way (submitted, and its
  // completion not polled yet).
  virtual uint32_t credits(Ring ring) const = 0;
  // Fills in epoch and seq, writes all and rings one doorbell. Never blocks. RESOURCE_EXHAUSTED, and nothing
  // is written, when the batch is larger than credits(); FAILED_PRECONDITION after a Wait that timed out.
  virtual absl::Status Submit(Ring ring, std::span<layout::Descriptor> batch) = 0;
  // Takes what is there, without waiting; the results of a completion are readable then. Returns how many.
  virtual size_t Poll(Ring ring, std::span<layout::Completion> out) = 0;
  // Returns once Poll would give something. UNAVAILABLE: the peer is gone; noticed within 100 ms.
  // DEADLINE_EXCEEDED: the service hangs; the ring takes nothing any more, and its payload and results stay
  // in use until the link is destroyed.
  virtual absl::Status Wait(Ring ring, std::chrono::nanoseconds timeout) = 0;
  // The peer is gone. Any thread; cheap enough for once a step.
  virtual bool lost() const = 0;

  const layout::AttachHello& granted() const { return info().granted; }
  const std::string& device_name() const { return info().device_name; }
  const Area& payload_area(Ring ring) const {
    return ring == Ring::kBulk ? info().bulk_payload : info().query_payload;
  }
  const Area& result_area() const { return info().results; }
};

// Connects and exchanges hellos. UNAVAILABLE: nobody listens, or the service closed or did not answer in
// time. FAILED_PRECONDITION names what differs between the two sides, both values. RESOURCE_EXHAUSTED: the
// service has no room for another owner. INVALID_ARGUMENT: the options, or what the service says of them.
absl::StatusOr<std::unique_ptr<MemoryLink>> Attach(const LinkOptions& options);

}  // namespace mnemo::transport
