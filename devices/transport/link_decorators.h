// Links around links: what a link does is checked, disturbed or written down.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "devices/transport/memory_link.h"

namespace mnemo::transport {

// Tells every departure from the contract, of either side: a payload or result outside the region, results
// that overlap others under way, a completion nobody waits for or whose fields cannot be, ids that are not
// within the range asked for, not in order or more than k. Everything is passed on unchanged.
using Violation = std::function<void(const std::string& what)>;
std::unique_ptr<MemoryLink> MakeCheckLink(std::unique_ptr<MemoryLink> inner, Violation violation);

// Faults that a worker has to live with, drawn by a seed: the same seed and the same calls give the same
// faults. Chances are in 65,536ths, of each call that the fault applies to.
struct FaultPlan {
  uint64_t seed = 0;
  uint32_t calls_before = 0;    // that nothing happens to
  uint32_t drop_chance = 0;     // Submit, Wait: the peer is gone, from then on
  uint32_t stall_chance = 0;    // Wait: the service hangs; the ring fails
  uint32_t garbage_chance = 0;  // Submit: one descriptor gets an operation that there is not
  uint32_t full_chance = 0;     // Submit: the ring has no room
  uint32_t fail_chance = 0;     // Poll: a completion says that the device failed
};
std::unique_ptr<MemoryLink> MakeFaultLink(std::unique_ptr<MemoryLink> inner, const FaultPlan& plan);

// One descriptor that went out, with its payload, or one completion that came in, with its results.
struct RecordedEvent {
  Ring ring = Ring::kBulk;
  bool is_completion = false;
  uint8_t slot[64] = {};  // Descriptor or Completion
  std::vector<uint8_t> bytes;
};
// `out` outlives the link. Made for tests and for finding out; it copies everything.
std::unique_ptr<MemoryLink> MakeRecordLink(std::unique_ptr<MemoryLink> inner, std::ostream* out);
// DATA_LOSS: cut off or not a recording.
absl::StatusOr<std::vector<RecordedEvent>> ReadRecording(std::istream& in);

}  // namespace mnemo::transport
