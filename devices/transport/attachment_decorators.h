// Decorators of an attachment: they check, disturb or record its operations.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "devices/transport/memory_attachment.h"

namespace mnemo::transport {

// Receives a description of each violation that MakeCheckedAttachment detects, by either side:
// - a payload or result outside the region,
// - results that overlap others in flight,
// - an unexpected completion, or one with impossible fields,
// - ids outside the requested range, out of order or more than k.
//
// The checked attachment passes everything on unchanged.
using Violation = std::function<void(const std::string& what)>;
std::unique_ptr<MemoryAttachment> MakeCheckedAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                        Violation violation);

// Faults that a worker must handle, drawn from a seed: the same seed and the same calls give the same faults.
// Chances are in 65,536ths per call that the fault applies to.
struct FaultPlan {
  uint64_t seed = 0;
  // Number of initial calls without faults.
  uint32_t calls_before = 0;
  // Submit, Wait: the peer is gone from then on.
  uint32_t drop_chance = 0;
  // Wait: the service hangs; the ring fails.
  uint32_t stall_chance = 0;
  // Submit: one descriptor gets an invalid operation.
  uint32_t garbage_chance = 0;
  // Submit: the ring has no room.
  uint32_t full_chance = 0;
  // Poll: a completion reports a device failure.
  uint32_t fail_chance = 0;
};
std::unique_ptr<MemoryAttachment> MakeFaultyAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                       const FaultPlan& plan);

// One submitted descriptor with its payload, or one received completion with its results.
struct RecordedEvent {
  Ring ring = Ring::kBulk;
  bool is_completion = false;
  uint8_t slot[64] = {};  // Descriptor or Completion
  std::vector<uint8_t> bytes;
};
// Writes every event to `out`, which must outlive the attachment. For tests and diagnosis; it copies
// everything.
std::unique_ptr<MemoryAttachment> MakeRecordedAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                         std::ostream* out);
// DATA_LOSS: the recording is truncated or malformed.
absl::StatusOr<std::vector<RecordedEvent>> ReadRecording(std::istream& in);

}  // namespace mnemo::transport
