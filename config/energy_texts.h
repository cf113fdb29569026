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

inline constexpr double kMaxWorkJoules = 0.001;

// A model of the use of the CPUs has busy_watts, one of work has joules a byte and an operation.
struct ModelFigures {
  std::string device;     // "cpu0"
  double idle_watts = 0;  // [0, kMaxWatts]
  double busy_watts = 0;  // at full use of all cores; [idle_watts, kMaxWatts]; 0: a model of work
  // [0, kMaxWorkJoules], not both 0 in a model of work. An operation is a multiply-add.
  double joules_per_byte = 0;
  double joules_per_operation = 0;

  bool counts_work() const { return busy_watts == 0; }
};

// Each parses the elements of one list. INVALID_ARGUMENT names the element and what it may be.
absl::Status CheckEnergySources(const std::vector<std::string>& texts);
// "cpu0=12.5"
absl::StatusOr<std::vector<DeviceWatts>> ParseIdleWatts(const std::vector<std::string>& texts);
// "cpu0 idle=12.5 busy=65", "gpu0 idle=30 byte=6e-11 operation=2e-12"
absl::StatusOr<std::vector<ModelFigures>> ParseEnergyModel(const std::vector<std::string>& texts);

}  // namespace mnemo::config
