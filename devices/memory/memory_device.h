#pragma once

// A memory device: what scans indexes and selects. The CPU's works in this process; a card stands behind the
// same five calls. Bulk operations are software's (index_store.h), which keeps what the device reads.

#include <stdint.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::memory_device {

class IndexStore;

// One query operation (layout::kOpScoreSelect, kOpGather or kOpScoreGather). Payload and result belong to the
// device until its completion; both may be memory that another process writes at the same time, which can
// spoil the numbers, but nothing else.
struct Operation {
  layout::Descriptor descriptor;  // a private copy that passed layout::Validate
  uint32_t owner = 0;             // whose index_id it is (index_store.h)
  const uint8_t* payload = nullptr;
  uint8_t* result = nullptr;
};

// One thread at a time calls a device.
class MemoryDevice {
 public:
  virtual ~MemoryDevice() = default;
  // "cpu0": tells the instance, for metrics and status. kind: as registered, "cpu".
  virtual const std::string& name() const = 0;
  virtual std::string_view kind() const = 0;
  // Masks and greatest values that descriptors may have; what an attachment grants is at most this. Quota,
  // region, rings and epoch are 0: they are the service's.
  virtual const layout::AttachHello& caps() const = 0;
  // Takes the first of `operations` as far as there is room, and returns how many. Does not block.
  virtual size_t Submit(std::span<const Operation> operations) = 0;
  // Writes completions of submitted operations, in the order of submission, and returns how many. A device in
  // this process does the work here, with the caller as one of its threads; a card answers at once, with 0
  // when nothing is finished. queue_ns is left 0: the caller knows when the doorbell rang.
  virtual size_t Poll(std::span<layout::Completion> completions) = 0;
  // Returns when nothing is under way; completions wait for Poll. DEADLINE_EXCEEDED of a card that hangs.
  virtual absl::Status Quiesce() = 0;
  // Drops what was submitted and not yet polled, without completions. Afterwards the device is as new, and
  // its indexes are lost if it says DATA_LOSS.
  virtual absl::Status Reset() = 0;
};

struct MemoryDeviceOptions {
  std::string kind = "cpu";
  std::string name = "cpu0";
  int threads = 1;                // the caller of Poll counts as one
  std::string isa = "auto";       // names of devices/cpu/isa.h
  uint32_t max_operations = 256;  // under way at a time
  uint32_t max_tokens = 1 << 20;  // of an index
  uint32_t max_k = 1 << 14;       // at least 8,192 by the contract of the service
  uint32_t max_group = 16;
  uint32_t max_queries = 8;
  uint32_t max_heads = 64;
  uint64_t scratch_bytes = 0;  // for scores; 0: as much as max_operations of 8,192 tokens and 3 heads take
  // KEY and VALUE of what the kind alone understands (memory_device_registry.h).
  std::vector<std::pair<std::string, std::string>> device_options;
};

// `store` outlives the device. INVALID_ARGUMENT names the kind, option or value that is wrong, and what is
// allowed.
absl::StatusOr<std::unique_ptr<MemoryDevice>> MakeMemoryDevice(const MemoryDeviceOptions& options,
                                                               IndexStore* store);

}  // namespace mnemo::memory_device
