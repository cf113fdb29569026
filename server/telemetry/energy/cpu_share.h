// Share of the busy CPU time that a set of processes has used, by the kernel's own accounts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string_view>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::attribution {

// CPU time of a process over all its threads, in ns (its CPU clock); none when it has ended.
std::optional<int64_t> ProcessCpuNs(pid_t pid);

// Busy time of all CPUs in ns, from the first line of /proc/stat: all but idle and waiting for I/O. Time of
// guests is part of user time. INVALID_ARGUMENT: not such a line.
absl::StatusOr<int64_t> ParseBusyNs(std::string_view stat, int64_t ticks_per_second);

// Reads /proc/stat, which it keeps open.
class BusyTime {
 public:
  BusyTime();
  std::optional<int64_t> Read();

 private:
  UniqueFd stat_;
};

// Sums over processes that come and go, at the times of calls of Sample. Not thread-safe.
class CpuShare {
 public:
  using ReadProcess = std::function<std::optional<int64_t>(pid_t)>;
  using ReadBusy = std::function<std::optional<int64_t>()>;

  CpuShare(ReadProcess process, ReadBusy busy);

  // A process counts from the first call that names it.
  void Sample(int64_t now_ns, std::span<const pid_t> processes);
  // CPU time of the processes divided by the busy time in [begin_ns, end_ns): [0, 1]. Values between samples
  // are interpolated. 1 where nothing was busy or the time is not known.
  double Share(int64_t begin_ns, int64_t end_ns) const;

 private:
  struct Point {
    int64_t time_ns = 0;
    double own_ns = 0;
    double busy_ns = 0;
  };
  Point At(int64_t time_ns) const;

  const ReadProcess process_;
  const ReadBusy busy_;
  std::map<pid_t, int64_t> last_;
  std::deque<Point> points_;  // ascending times, bounded
};

}  // namespace mnemo::attribution
