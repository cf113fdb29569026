// Time of all CPUs, from /proc/stat.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace mnemo::energy {

struct CpuTimes {
  double busy_seconds = 0;  // of all CPUs together, since boot
  double idle_seconds = 0;  // waiting for input and output included
};

// DATA_LOSS: not the format of /proc/stat. UNAVAILABLE: the file cannot be read. Blocks to read it.
absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path = "/proc/stat");

}  // namespace mnemo::energy
