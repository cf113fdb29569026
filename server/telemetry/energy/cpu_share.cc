#include "server/telemetry/energy/cpu_share.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "devices/energy/cpu_times.h"

namespace mnemo::attribution {
namespace {

constexpr size_t kMostPoints = 256;
constexpr int64_t kNsPerSecond = 1'000'000'000;

}  // namespace

std::optional<int64_t> ProcessCpuNs(pid_t pid) {
  clockid_t clock = 0;
  timespec time{};
  if (pid <= 0 || ::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0)
    return std::nullopt;
  return int64_t{time.tv_sec} * kNsPerSecond + time.tv_nsec;
}

absl::StatusOr<int64_t> ParseBusyNs(std::string_view stat, int64_t ticks_per_second) {
  const absl::StatusOr<energy::CpuTicks> ticks = energy::ParseCpuTicks(stat);
  if (!ticks.ok()) return Annotate(ticks.status(), "/proc/stat");
  return static_cast<int64_t>(static_cast<double>(ticks->busy + ticks->stolen) /
                              static_cast<double>(ticks_per_second) * static_cast<double>(kNsPerSecond));
}

BusyTime::BusyTime() : stat_(::open("/proc/stat", O_RDONLY | O_CLOEXEC)) {}

std::optional<int64_t> BusyTime::Read() {
  std::array<char, 512> text{};
  const ssize_t count = stat_.valid() ? ::pread(stat_.get(), text.data(), text.size(), 0) : -1;
  if (count <= 0) return std::nullopt;
  const auto busy = ParseBusyNs({text.data(), static_cast<size_t>(count)}, ::sysconf(_SC_CLK_TCK));
  return busy.ok() ? std::optional<int64_t>(*busy) : std::nullopt;
}

CpuShare::CpuShare(ReadProcess process, ReadBusy busy)
    : process_(std::move(process)), busy_(std::move(busy)) {}

void CpuShare::Sample(int64_t now_ns, std::span<const pid_t> processes) {
  const std::optional<int64_t> busy = busy_();
  if (!busy.has_value()) return;
  Point point{now_ns, points_.empty() ? 0 : points_.back().own_ns, static_cast<double>(*busy)};
  std::map<pid_t, int64_t> seen;
  for (const pid_t pid : processes) {
    const std::optional<int64_t> used = process_(pid);
    if (!used.has_value()) continue;
    const auto last = last_.find(pid);
    // A number that is used again begins at less.
    if (last != last_.end() && *used > last->second && !seen.contains(pid))
      point.own_ns += static_cast<double>(*used - last->second);
    seen[pid] = *used;
  }
  last_ = std::move(seen);
  if (!points_.empty() && now_ns <= points_.back().time_ns) return;
  points_.push_back(point);
  if (points_.size() > kMostPoints) points_.pop_front();
}

CpuShare::Point CpuShare::At(int64_t time_ns) const {
  const auto after = std::lower_bound(points_.begin(), points_.end(), time_ns,
                                      [](const Point& point, int64_t time) { return point.time_ns < time; });
  if (after == points_.begin()) return points_.front();
  if (after == points_.end()) return points_.back();
  const Point& a = *(after - 1);
  const Point& b = *after;
  const double part = static_cast<double>(time_ns - a.time_ns) / static_cast<double>(b.time_ns - a.time_ns);
  return {time_ns, a.own_ns + part * (b.own_ns - a.own_ns), a.busy_ns + part * (b.busy_ns - a.busy_ns)};
}

double CpuShare::Share(int64_t begin_ns, int64_t end_ns) const {
  if (points_.size() < 2) return 1;
  const Point begin = At(begin_ns);
  const Point end = At(end_ns);
  const double own = end.own_ns - begin.own_ns;
  const double busy = end.busy_ns - begin.busy_ns;
  // Ticks of the kernel are coarser than its CPU clocks.
  if (busy <= 0 || own >= busy) return 1;
  return own / busy;
}

}  // namespace mnemo::attribution
