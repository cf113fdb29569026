#pragma once

// Runs a workload on a memory device of this build, and tells the times of its completions.

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/base/status.h"
#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "devices/memory/record_memory.h"
#include "fpga/report/workload.h"
#include "proto/layout/descriptor.h"

namespace mnemo::card::report {

struct DeviceTimes {
  // As the completion has them: simulated where the device is simulated. Threads' times that add up to more
  // than wall_us are shares of it.
  double score_us = 0;
  double select_us = 0;
  double wall_us = 0;  // from submission to completion
  uint64_t bytes = 0;  // bytes_read of the completion
  // Cycles in which the channel that has most had a scan; 0: the device counts none.
  uint64_t busy_cycles = 0;
  // The scan of one head of the descriptor alone. 0: not of a simulated device, or the workload has one head.
  double head_us = 0;
};

class DeviceRun {
 public:
  // INVALID_ARGUMENT names the kind or option that is wrong.
  static absl::StatusOr<std::unique_ptr<DeviceRun>> Make(const memory_device::MemoryDeviceOptions& options);

  static absl::StatusOr<std::unique_ptr<DeviceRun>> Over(std::unique_ptr<memory_device::MemoryDevice> device);

  // Makes an index of random keys, runs the workload's descriptor `times` times and returns the least times.
  // UNIMPLEMENTED: the device has not the operation. INTERNAL: it answered with another status.
  absl::StatusOr<DeviceTimes> Run(const Workload& workload, uint32_t times);

  // The parts of Run. Begin returns the descriptor of the index and queries that it makes.
  absl::StatusOr<layout::Descriptor> Begin(const Workload& workload);
  absl::StatusOr<DeviceTimes> RunOnce(const layout::Descriptor& descriptor);
  absl::Status End();

  // Ids of the first head, as the last run has them.
  std::vector<uint32_t> Ids() const;

  const memory_device::MemoryDevice& device() const { return *device_; }
  memory_device::IndexKey index() const;  // between Begin and End
  const std::vector<uint8_t>& payload() const { return payload_; }
  const std::vector<uint8_t>& result() const { return result_; }  // of the last RunOnce

 private:
  DeviceRun(std::unique_ptr<memory_device::MemoryDevice> device,
            std::unique_ptr<memory_device::IndexTable> table, uint32_t owner);

  bool Serves(const Workload& workload) const;
  absl::Status FillIndex(const Workload& workload);
  uint64_t BusyCycles();

  std::unique_ptr<memory_device::MemoryDevice> device_;
  std::unique_ptr<memory_device::IndexTable> table_;
  const uint32_t owner_;
  std::vector<uint8_t> payload_;
  std::vector<uint8_t> result_;
};

}  // namespace mnemo::card::report
