// Share of the busy CPU time that a set of processes has used, by the kernel's own accounts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace mnemo::attribution {

// CPU time of a process over all its threads, in ns (its CPU clock); none when it has ended.
std::optional<int64_t> ProcessCpuNs(pid_t pid);

// Sums over processes that come and go, at the times of calls of Sample. Not thread-safe.
class CpuShare {
 public:
  using ReadProcess = std::function<std::optional<int64_t>(pid_t)>;

  explicit CpuShare(ReadProcess process);

  // `busy_seconds`: of all CPUs since boot (energy::CpuTimes). A process counts from the first call that
  // names it.
  void Sample(int64_t now_ns, double busy_seconds, std::span<const pid_t> processes);
  // CPU time of the processes divided by the busy time in [begin_ns, end_ns): [0, 1]. Values between samples
  // are interpolated. 1 where nothing was busy or the time is not known.
  double Share(int64_t begin_ns, int64_t end_ns) const;

 private:
  struct Point {
    int64_t time_ns = 0;
    double own_seconds = 0;
    double busy_seconds = 0;
  };
  Point At(int64_t time_ns) const;

  const ReadProcess process_;
  struct Used {
    pid_t pid = 0;
    int64_t cpu_ns = 0;
  };
  std::vector<Used> last_;    // of the last call of Sample
  std::vector<Used> seen_;    // of the present one
  std::deque<Point> points_;  // ascending times, bounded
};

}  // namespace mnemo::attribution
