#pragma once

// The memory device of this machine's processor: a query batch over an index store, with a team of threads.

#include <memory>
#include <vector>

#include "devices/memory/cpu/query_batch.h"
#include "devices/memory/memory_device.h"
#include "devices/memory/memory_device_registry.h"

namespace mnemo::devices::cpu {
class ThreadPool;
}

namespace mnemo::memory_device::cpu {

MemoryDeviceKind Kind();

class CpuMemoryDevice final : public MemoryDevice {
 public:
  static absl::StatusOr<std::unique_ptr<MemoryDevice>> Create(const MemoryDeviceOptions& options,
                                                              IndexStore* store);
  ~CpuMemoryDevice() override;

  const std::string& name() const override { return options_.name; }
  std::string_view kind() const override { return "cpu"; }
  const layout::AttachHello& caps() const override { return caps_; }
  size_t Submit(std::span<const Operation> operations) override;
  size_t Poll(std::span<layout::Completion> completions) override;
  absl::Status Quiesce() override;
  absl::Status Reset() override;

  // Runs the items of an append with the same team; between submissions.
  void RunAppend(AppendJob* job);

 private:
  CpuMemoryDevice(const MemoryDeviceOptions& options, IndexStore* store, std::unique_ptr<QueryBatch> batch);
  // Does what was submitted; completions wait in done_.
  void RunSubmitted();

  const MemoryDeviceOptions options_;
  IndexStore* const store_;
  const std::unique_ptr<QueryBatch> batch_;
  const std::unique_ptr<devices::cpu::ThreadPool> pool_;
  layout::AttachHello caps_;
  std::vector<Operation> submitted_;
  std::vector<layout::Completion> done_;
  size_t polled_ = 0;  // of done_
};

}  // namespace mnemo::memory_device::cpu
