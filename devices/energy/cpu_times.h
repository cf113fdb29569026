// Time of all CPUs, from /proc/stat.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::energy {

// Times of all CPUs together since boot, in ticks of the kernel (sysconf(_SC_CLK_TCK) a second): proc(5).
struct CpuTicks {
  int64_t busy = 0;    // user, nice, system, irq, softirq; guests are part of user and nice
  int64_t idle = 0;    // idle, iowait
  int64_t stolen = 0;  // work of other guests of the host
};

// Parses the first line of /proc/stat. INVALID_ARGUMENT: not that of all CPUs, or a field is not a time.
absl::StatusOr<CpuTicks> ParseCpuTicks(std::string_view stat);

struct CpuTimes {
  double busy_seconds = 0;  // of all CPUs together, since boot
  double idle_seconds = 0;  // waiting for input and output included
};

// DATA_LOSS: not the format of /proc/stat. UNAVAILABLE: the file cannot be read. Blocks to read it.
absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path = "/proc/stat");

}  // namespace mnemo::energy
