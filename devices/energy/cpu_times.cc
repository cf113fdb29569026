#include "devices/energy/cpu_times.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace mnemo::energy {

absl::StatusOr<CpuTimes> ParseCpuTimes(std::string_view stat, int64_t ticks_per_second) {
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
  const auto second = static_cast<double>(ticks_per_second);
  return CpuTimes{.busy_seconds = static_cast<double>(user + nice + system + irq + soft_irq) / second,
                  .idle_seconds = static_cast<double>(idle + waiting + stolen) / second};
}

CpuTimesFile::CpuTimesFile(std::string path)
    : path_(std::move(path)),
      ticks_per_second_(::sysconf(_SC_CLK_TCK)),
      file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {}

absl::StatusOr<CpuTimes> CpuTimesFile::Read() {
  // The first line alone: at most 214 bytes, ten numbers of 20 digits.
  std::array<char, 256> text;
  const ssize_t count = file_.valid() ? ::pread(file_.get(), text.data(), text.size(), 0) : -1;
  if (count < 0) return Unavailable("{}: {}", path_, std::strerror(errno));
  const absl::StatusOr<CpuTimes> times =
      ParseCpuTimes({text.data(), static_cast<size_t>(count)}, ticks_per_second_);
  if (!times.ok()) return DataLoss("{}: {}", path_, std::string(times.status().message()));
  return times;
}

absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path) { return CpuTimesFile(path).Read(); }

}  // namespace mnemo::energy
