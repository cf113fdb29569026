#pragma once

// A memory device: what scans indexes and selects. The CPU's works in this process; a card stands behind the
// same calls. Bulk operations are software's (index_table.h), which tells the device's record memory
// (record_memory.h) what it may read.

#include <stdint.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "devices/memory/record_memory.h"
#include "proto/layout/attach.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::memory_device {

// One query operation (layout::kOpScoreSelect, kOpGather or kOpScoreGather). Payload and result belong to the
// device until its completion; both may be memory that another process writes at the same time, which can
// spoil the numbers, but nothing else.
struct Operation {
  layout::Descriptor descriptor;  // a private copy that passed layout::Validate
  uint32_t owner = 0;             // whose index_id it is (index_table.h)
  const uint8_t* payload = nullptr;
  uint8_t* result = nullptr;
};

// A figure that a device counts by itself, from its start or its last Reset.
struct DeviceCounter {
  // Metric without its prefix "mnemo_memory_service_", from the table of metrics; the strings are literals.
  std::string_view name;
  int channel = -1;        // of the device's memory; -1: the device as a whole
  std::string_view label;  // name of one more label of the metric, and its value; empty: it has none
  std::string_view label_value;
  double value = 0;
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
  // The device's, for its life; called by the same thread.
  virtual RecordMemory& memory() = 0;
  // Whether the times in completions are simulated: cycles of a device that does not exist, by its clock.
  virtual bool simulated_time() const { return false; }
  // Where joules in completions come from: "model", or the name of a counter. Empty: completions have none. A
  // literal.
  virtual std::string_view energy_source() const { return {}; }
  // As of now; empty: the device counts nothing. Does not block.
  virtual std::vector<DeviceCounter> Counters() { return {}; }
  // Takes the first of `operations` as far as there is room, and returns how many. Does not block.
  virtual size_t Submit(std::span<const Operation> operations) = 0;
  // Writes completions of submitted operations, in the order of submission, and returns how many. A device in
  // this process does the work here, with the caller as one of its threads; a card answers at once, with 0
  // when nothing is finished. queue_ns is left 0: the caller knows when the doorbell rang.
  virtual size_t Poll(std::span<layout::Completion> completions) = 0;
  // For a caller that is about to sleep: readable when Poll or RecordMemory::Arrived may have news; -1: the
  // device has none now and is asked now and then. For one poll(2); the device reads it.
  virtual int event_fd() { return -1; }
  // Returns when nothing is under way; completions wait for Poll. DEADLINE_EXCEEDED of a card that hangs.
  virtual absl::Status Quiesce() = 0;
  // Drops what was submitted and not yet polled, without completions, and uploads under way; payloads and
  // results are touched no more. Blocks for as long as the device takes to start. OK: the device is as new,
  // but for its indexes, which are there. DATA_LOSS: its indexes are lost, the record memory is empty.
  // Another error: the indexes are lost and the device cannot be used; Reset may be tried again.
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

// INVALID_ARGUMENT names the kind, option or value that is wrong, and what is allowed.
absl::StatusOr<std::unique_ptr<MemoryDevice>> MakeMemoryDevice(const MemoryDeviceOptions& options);

}  // namespace mnemo::memory_device
