// The text forms of settings of energy: devices, watts and figures of a model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::config {

// Where joules come from, in order of preference: of two sources of one device the first one counts.
inline constexpr std::string_view kEnergySources[] = {"rapl", "perf", "nvml", "rocm_smi", "xrt"};
inline constexpr double kMaxWatts = 100000;

struct DeviceWatts {
  std::string device;  // "cpu0"
  double watts = 0;    // [0, kMaxWatts]
};

struct ModelFigures {
  std::string device;     // "cpu0" or "dram0"
  double idle_watts = 0;  // [0, busy_watts]
  double busy_watts = 0;  // at full use of all cores; [idle_watts, kMaxWatts], above 0
};

// Each parses the elements of one list. INVALID_ARGUMENT names the element and what it may be.
absl::Status CheckEnergySources(const std::vector<std::string>& texts);
// "cpu0=12.5"
absl::StatusOr<std::vector<DeviceWatts>> ParseIdleWatts(const std::vector<std::string>& texts);
// "cpu0 idle=12.5 busy=65"
absl::StatusOr<std::vector<ModelFigures>> ParseEnergyModel(const std::vector<std::string>& texts);

}  // namespace mnemo::config
