// Time of all CPUs, from /proc/stat.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::energy {

// Times of all CPUs together since boot. Stolen time is idle: a hypervisor ran other guests while these CPUs
// stood still. All of energy accounting has this one definition.
struct CpuTimes {
  double busy_seconds = 0;  // user, nice, system, irq, softirq; guests are part of user and nice
  double idle_seconds = 0;  // idle, iowait, steal
};

// Parses the first line of /proc/stat (proc(5)), in ticks of which the kernel has `ticks_per_second`
// (sysconf(_SC_CLK_TCK)). INVALID_ARGUMENT: not the line of all CPUs, or a field is not a time.
absl::StatusOr<CpuTimes> ParseCpuTimes(std::string_view stat, int64_t ticks_per_second);

// Keeps /proc/stat open: a reading is one system call. One thread.
class CpuTimesFile {
 public:
  explicit CpuTimesFile(std::string path = "/proc/stat");
  // DATA_LOSS: not the format of /proc/stat. UNAVAILABLE: the file cannot be read. Blocks to read it.
  absl::StatusOr<CpuTimes> Read();

 private:
  const std::string path_;
  const int64_t ticks_per_second_;
  UniqueFd file_;
};

// The same, once.
absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path = "/proc/stat");

}  // namespace mnemo::energy
