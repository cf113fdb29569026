// Counters of the perf PMU "power": RAPL by perf_event_open.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "devices/base/unique_fd.h"
#include "devices/energy/counter.h"

namespace mnemo::energy {

struct PerfEvent {
  uint32_t type = 0;    // of the PMU
  uint64_t config = 0;  // of the event
  int cpu = 0;
};

// The system call, for tests to replace. PERMISSION_DENIED: CAP_PERFMON is missing.
using OpenPerfEvent = std::function<absl::StatusOr<UniqueFd>(const PerfEvent&)>;
absl::StatusOr<UniqueFd> SystemOpenPerfEvent(const PerfEvent& event);

// Counters of energy-pkg (cpuN, N the package of the CPU) and energy-ram (dramN), one for each CPU in the
// PMU's cpumask. energy-psys holds the packages and is left out; energy-cores and energy-gpu are parts of
// them. `sys` is the mount point of sysfs. Empty without the PMU, or when the scale or unit is none of
// joules.
Counters FindPerfCounters(const std::string& sys, OpenPerfEvent open = SystemOpenPerfEvent);

}  // namespace mnemo::energy
