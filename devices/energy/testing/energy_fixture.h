// Shared by the tests of meters: an injected clock and trees of small files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/energy/sampler.h"
#include "tests/support/temp_folder.h"

namespace mnemo::energy::testing {

inline constexpr int64_t kTestSecondNs = 1'000'000'000;
inline constexpr int64_t kTestIntervalNs = kTestSecondNs / 10;

// Time, CPU use and log of one test.
struct TestWorld {
  int64_t now_ns = 1'000 * kTestSecondNs;
  CpuTimes cpu{.busy_seconds = 10, .idle_seconds = 100};
  std::vector<std::string> log;

  // Lets time pass on two CPUs that are busy to the given part.
  void Pass(int64_t length_ns, double use = 0) {
    now_ns += length_ns;
    const double seconds = 2e-9 * static_cast<double>(length_ns);
    cpu.busy_seconds += use * seconds;
    cpu.idle_seconds += (1 - use) * seconds;
  }
  std::function<int64_t()> Now() {
    return [this] { return now_ns; };
  }
  Round Present() const { return {.now_ns = now_ns, .cpu = cpu}; }
  std::function<void(const std::string&)> Log() {
    return [this](const std::string& line) { log.push_back(line); };
  }
};

inline double Joules(const std::vector<EnergyInterval>& intervals, const std::string& label = "cpu0") {
  double joules = 0;
  for (const EnergyInterval& interval : intervals) {
    if (interval.device.Label() == label) joules += interval.joules;
  }
  return joules;
}

inline MeterState StateOf(const EnergySource& source, const std::string& label, const std::string& name) {
  for (const MeterState& state : source.States()) {
    if (state.device.Label() == label && state.device.source == name) return state;
  }
  MeterState none;
  none.device.source = "absent";
  return none;
}

inline void WriteText(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

// A fake /sys/class/powercap.
class PowercapTree {
 public:
  void AddZone(const std::string& zone, const std::string& name, uint64_t range_uj = 262143328850) {
    WriteText(folder_.path() / zone / "name", name + "\n");
    WriteText(folder_.path() / zone / "max_energy_range_uj", std::to_string(range_uj) + "\n");
    Set(zone, 0);
  }
  void Set(const std::string& zone, uint64_t energy_uj) {
    WriteText(folder_.path() / zone / "energy_uj", std::to_string(energy_uj) + "\n");
  }
  std::filesystem::path path(const std::string& zone = "") const { return folder_.path() / zone; }

 private:
  mnemo::testing::TempFolder folder_;
};

}  // namespace mnemo::energy::testing
