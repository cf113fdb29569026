#include "devices/energy/powercap.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "devices/energy/small_file.h"

namespace mnemo::energy {
namespace {

constexpr double kJoulesPerCount = 1e-6;
constexpr double kMaxPackageWatts = 2000;
constexpr std::string_view kControlType = "intel-rapl:";

struct Package {
  int number = 0;
  int die = -1;                                      // -1: the whole package
  auto operator<=>(const Package&) const = default;  // NOLINT(modernize-use-nullptr)
};

class PowercapCounter : public Counter {
 public:
  PowercapCounter(MeteredDevice device, std::string zone)
      : zone_(std::move(zone)), energy_(zone_ + "/energy_uj") {
    info_.device = std::move(device);
    info_.joules_per_count = kJoulesPerCount;
    info_.max_watts = kMaxPackageWatts;
    ReadRange();
  }
  const CounterInfo& info() const override { return info_; }
  absl::StatusOr<RawReading> Read() override {
    // The range may have been unreadable when the zone was found.
    if (info_.range == 0) ReadRange();
    MNEMO_ASSIGN_OR_RETURN(const uint64_t count, energy_.Read());
    return RawReading{.count = count};
  }

 private:
  void ReadRange() {
    if (const absl::StatusOr<uint64_t> range = ReadNumber(zone_ + "/max_energy_range_uj"); range.ok()) {
      info_.range = *range;
    }
  }

  const std::string zone_;
  NumberFile energy_;
  CounterInfo info_;
};

// Takes a number of at most four digits from the front of `text`.
std::optional<int> TakeNumber(std::string_view* text) {
  int number = 0;
  const size_t length = std::min<size_t>(text->size(), 4);
  const auto [end, error] = std::from_chars(text->data(), text->data() + length, number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return number;
}

bool Take(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// "package-1", "package-1-die-0".
std::optional<Package> ParsePackage(std::string_view name) {
  Package package;
  if (!Take(&name, "package-")) return std::nullopt;
  const std::optional<int> number = TakeNumber(&name);
  if (!number) return std::nullopt;
  package.number = *number;
  if (name.empty()) return package;
  if (!Take(&name, "-die-")) return std::nullopt;
  const std::optional<int> die = TakeNumber(&name);
  if (!die || !name.empty()) return std::nullopt;
  package.die = *die;
  return package;
}

}  // namespace

Counters FindPowercapCounters(const std::string& root) {
  namespace fs = std::filesystem;
  std::map<std::string, Package> packages;  // by the zone's name: "intel-rapl:0"
  std::vector<std::string> dram;            // "intel-rapl:0:1"
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string zone = it->path().filename().string();
    if (!zone.starts_with(kControlType)) continue;
    const absl::StatusOr<std::string> name = ReadSmallFile(it->path().string() + "/name");
    if (!name.ok()) continue;
    if (const std::optional<Package> package = ParsePackage(*name)) {
      packages[zone] = *package;
    } else if (*name == "dram") {
      dram.push_back(zone);
    }
  }
  // A package of several dies has a zone for each; these are numbered through.
  std::vector<Package> order;
  for (const auto& [zone, package] : packages) order.push_back(package);
  std::sort(order.begin(), order.end());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  const bool has_dies = std::any_of(order.begin(), order.end(), [](const Package& p) { return p.die >= 0; });
  const auto index = [&](const Package& package) {
    return has_dies ? static_cast<int>(std::lower_bound(order.begin(), order.end(), package) - order.begin())
                    : package.number;
  };
  Counters counters;
  std::vector<Package> taken;
  const auto add = [&](DeviceKind kind, const Package& package, const std::string& zone) {
    counters.push_back(std::make_unique<PowercapCounter>(MeteredDevice{kind, index(package), "rapl"},
                                                         (fs::path(root) / zone).string()));
  };
  for (const auto& [zone, package] : packages) {
    if (std::find(taken.begin(), taken.end(), package) != taken.end()) continue;
    taken.push_back(package);
    add(DeviceKind::kCpu, package, zone);
  }
  std::sort(dram.begin(), dram.end());
  for (const std::string& zone : dram) {
    const auto parent = packages.find(zone.substr(0, zone.rfind(':')));
    if (parent != packages.end()) add(DeviceKind::kDram, parent->second, zone);
  }
  return counters;
}

}  // namespace mnemo::energy
