#include "devices/energy/cpu_times.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "devices/energy/small_file.h"

namespace mnemo::energy {

absl::StatusOr<CpuTicks> ParseCpuTicks(std::string_view stat) {
  const std::string_view line = stat.substr(0, stat.find('\n'));
  if (!line.starts_with("cpu ")) return InvalidArgument("\"{}\" is not the line of all CPUs", line);
  std::string_view rest = line.substr(3);
  std::array<int64_t, 8> ticks{};
  for (size_t i = 0; i < ticks.size(); ++i) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), ticks[i]);
    if (error != std::errc() || ticks[i] < 0) {
      return InvalidArgument("field {} of \"{}\" is not a time", i + 1, line);
    }
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  }
  const auto [user, nice, system, idle, waiting, irq, soft_irq, stolen] = ticks;
  return CpuTicks{.busy = user + nice + system + irq + soft_irq, .idle = idle + waiting, .stolen = stolen};
}

absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path) {
  MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  const absl::StatusOr<CpuTicks> ticks = ParseCpuTicks(text);
  if (!ticks.ok()) return DataLoss("{}: {}", path, std::string(ticks.status().message()));
  const auto second = static_cast<double>(::sysconf(_SC_CLK_TCK));
  // During stolen time these CPUs stood still.
  return CpuTimes{.busy_seconds = static_cast<double>(ticks->busy) / second,
                  .idle_seconds = static_cast<double>(ticks->idle + ticks->stolen) / second};
}

}  // namespace mnemo::energy
