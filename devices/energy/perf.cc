#include "devices/energy/perf.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "devices/energy/small_file.h"

namespace mnemo::energy {
namespace {

constexpr int kMostCpus = 65536;

class PerfCounter : public Counter {
 public:
  PerfCounter(MeteredDevice device, const PerfEvent& event, double joules_per_count, OpenPerfEvent open)
      : event_(event), open_(std::move(open)) {
    info_.device = std::move(device);
    info_.joules_per_count = joules_per_count;
  }
  const CounterInfo& info() const override { return info_; }
  absl::StatusOr<RawReading> Read() override {
    if (!fd_.valid()) {
      MNEMO_ASSIGN_OR_RETURN(fd_, open_(event_));
    }
    // The kernel sums over wraps of the hardware, so that the count has 64 bits.
    uint64_t count = 0;
    const ssize_t length = ::read(fd_.get(), &count, sizeof(count));
    if (length != sizeof(count)) {
      const int error = length < 0 ? errno : 0;
      fd_.Reset();
      return Unavailable("perf event {} of CPU {}: {}", event_.config, event_.cpu,
                         error != 0 ? std::strerror(error) : "the event's CPU is offline");
    }
    return RawReading{.count = count};
  }

 private:
  const PerfEvent event_;
  const OpenPerfEvent open_;
  CounterInfo info_;
  UniqueFd fd_;
};

// "event=0x02"
std::optional<uint64_t> ParseConfig(std::string_view text) {
  constexpr std::string_view kPrefix = "event=0x";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  text.remove_prefix(kPrefix.size());
  uint64_t config = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), config, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return config;
}

// "2.3283064365386962890625e-10"
std::optional<double> ParseScale(const std::string& text) {
  double scale = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), scale);
  if (error != std::errc() || end != text.data() + text.size() || !(scale > 0 && scale < 1)) {
    return std::nullopt;
  }
  return scale;
}

// "0,18" or "0-3,8"
std::vector<int> ParseCpus(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    int first = 0;
    const char* const end = part.data() + part.size();
    auto [at, error] = std::from_chars(part.data(), end, first);
    int last = first;
    if (error == std::errc() && at != end && *at == '-') {
      const auto [after, last_error] = std::from_chars(at + 1, end, last);
      at = after;
      error = last_error;
    }
    if (error != std::errc() || at != end || first < 0 || last < first || last >= kMostCpus) return {};
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

absl::StatusOr<UniqueFd> SystemOpenPerfEvent(const PerfEvent& event) {
  perf_event_attr attributes = {};
  attributes.size = sizeof(attributes);
  attributes.type = event.type;
  attributes.config = event.config;
  UniqueFd fd(
      static_cast<int>(::syscall(SYS_perf_event_open, &attributes, -1, event.cpu, -1, PERF_FLAG_FD_CLOEXEC)));
  if (fd.valid()) return fd;
  const int error = errno;
  const std::string message =
      fmt::format("perf event {} of CPU {}: {}", event.config, event.cpu, std::strerror(error));
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(message)
                                           : absl::UnavailableError(message);
}

Counters FindPerfCounters(const std::string& sys, OpenPerfEvent open) {
  const std::string pmu = sys + "/bus/event_source/devices/power";
  const absl::StatusOr<uint64_t> type = ReadNumber(pmu + "/type");
  const absl::StatusOr<std::string> cpus = ReadSmallFile(pmu + "/cpumask");
  Counters counters;
  if (!type.ok() || !cpus.ok() || *type > UINT32_MAX) return counters;
  constexpr std::array<std::pair<const char*, DeviceKind>, 2> kEvents = {
      {{"energy-pkg", DeviceKind::kCpu}, {"energy-ram", DeviceKind::kDram}}};
  for (const auto& [name, kind] : kEvents) {
    const std::string event = pmu + "/events/" + name;
    const absl::StatusOr<std::string> config = ReadSmallFile(event);
    const absl::StatusOr<std::string> scale = ReadSmallFile(event + ".scale");
    const absl::StatusOr<std::string> unit = ReadSmallFile(event + ".unit");
    if (!config.ok() || !scale.ok() || !unit.ok() || *unit != "Joules") continue;
    const std::optional<uint64_t> number = ParseConfig(*config);
    const std::optional<double> joules_per_count = ParseScale(*scale);
    if (!number || !joules_per_count) continue;
    std::set<int> packages;
    for (const int cpu : ParseCpus(*cpus)) {
      const absl::StatusOr<uint64_t> package =
          ReadNumber(fmt::format("{}/devices/system/cpu/cpu{}/topology/physical_package_id", sys, cpu));
      // With several dies a package has several CPUs in the mask, and its numbers would not be those of
      // powercap.
      if (!package.ok() || *package >= kMostCpus) continue;
      if (!packages.insert(static_cast<int>(*package)).second) continue;
      counters.push_back(std::make_unique<PerfCounter>(
          MeteredDevice{kind, static_cast<int>(*package), "perf"},
          PerfEvent{static_cast<uint32_t>(*type), *number, cpu}, *joules_per_count, open));
    }
  }
  return counters;
}

}  // namespace mnemo::energy
