// Options of a data plane over the late device, for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "devices/memory/testing/late_device.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service::testing {

using DeviceOptions = std::vector<std::pair<std::string, std::string>>;

// Over the device for tests, with its options (devices/memory/testing/late_device.h).
inline DataPlane::Options LateDevice(DeviceOptions device_options) {
  memory_device::testing::AddLateKind();
  DataPlane::Options options;
  options.device = "late";
  options.device_options = std::move(device_options);
  options.operation_timeout_ms = 200;
  return options;
}

// Options of schedule `n`: late completions, and after some time one that fails, hangs, or hangs and loses
// the memory.
inline DeviceOptions DeviceFaultOf(int n, int most_operations) {
  DeviceOptions options = {{"seed", std::to_string(n)},
                           {"delay_us", std::to_string(n % 3 * 50)},
                           {"burst_us", std::to_string(n % 2 * 100)},
                           {"event", std::to_string(n % 2)}};
  const std::string after = std::to_string(1 + n * 2654435761U % static_cast<unsigned>(most_operations));
  options.emplace_back(n % 4 == 0 ? "fail_after" : n % 4 == 3 ? "hang_uploads" : "hang_after", after);
  if (n % 4 >= 2) options.emplace_back("lose", "1");
  return options;
}

}  // namespace mnemo::memory_service::testing
