#include "devices/memory/cpu/cpu_memory_device.h"
#include "devices/memory/memory_device.h"

namespace mnemo::memory_device {

absl::StatusOr<std::unique_ptr<MemoryDevice>> MakeMemoryDevice(const MemoryDeviceOptions& options,
                                                               IndexStore* store) {
  if (options.kind == "cpu") {
    return cpu::CpuMemoryDevice::Create(options, store);
  }
  return InvalidArgument("memory device '{}' is not known; there is: cpu", options.kind);
}

}  // namespace mnemo::memory_device
