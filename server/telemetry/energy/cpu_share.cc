#include "server/telemetry/energy/cpu_share.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace mnemo::attribution {
namespace {

constexpr size_t kMostPoints = 256;
constexpr int64_t kNsPerSecond = 1'000'000'000;

}  // namespace

std::optional<int64_t> ProcessCpuNs(pid_t pid) {
  // The number that clock_getcpuclockid(3) gives, which asks the kernel for it at each call.
  const auto clock = static_cast<clockid_t>((~static_cast<uint32_t>(pid) << 3) | 2U);
  timespec time{};
  if (pid <= 0 || ::clock_gettime(clock, &time) != 0) return std::nullopt;
  return int64_t{time.tv_sec} * kNsPerSecond + time.tv_nsec;
}

CpuShare::CpuShare(ReadProcess process) : process_(std::move(process)) {}

void CpuShare::Sample(int64_t now_ns, double busy_seconds, std::span<const pid_t> processes) {
  Point point{now_ns, points_.empty() ? 0 : points_.back().own_seconds, busy_seconds};
  const auto find = [](const std::vector<Used>& all, pid_t pid) {
    return std::find_if(all.begin(), all.end(), [&](const Used& used) { return used.pid == pid; });
  };
  seen_.clear();
  for (const pid_t pid : processes) {
    const std::optional<int64_t> used = process_(pid);
    if (!used.has_value() || find(seen_, pid) != seen_.end()) continue;
    const auto last = find(last_, pid);
    // A number that is used again begins at less.
    if (last != last_.end() && *used > last->cpu_ns)
      point.own_seconds += static_cast<double>(*used - last->cpu_ns) * 1e-9;
    seen_.push_back({pid, *used});
  }
  std::swap(last_, seen_);
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
  return {time_ns, a.own_seconds + part * (b.own_seconds - a.own_seconds),
          a.busy_seconds + part * (b.busy_seconds - a.busy_seconds)};
}

double CpuShare::Share(int64_t begin_ns, int64_t end_ns) const {
  if (points_.size() < 2) return 1;
  const Point begin = At(begin_ns);
  const Point end = At(end_ns);
  const double own = end.own_seconds - begin.own_seconds;
  const double busy = end.busy_seconds - begin.busy_seconds;
  // Ticks of the kernel are coarser than its CPU clocks.
  if (busy <= 0 || own >= busy) return 1;
  return own / busy;
}

}  // namespace mnemo::attribution
