// Each source over a fake of its interface: trees of files and libraries that this build makes.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "devices/base/clock.h"
#include "devices/energy/dynamic_library.h"
#include "devices/energy/make_energy_source.h"
#include "devices/energy/nvml.h"
#include "devices/energy/perf.h"
#include "devices/energy/powercap.h"
#include "devices/energy/rocm_smi.h"
#include "devices/energy/small_file.h"
#include "devices/energy/testing/energy_fixture.h"
#include "devices/energy/testing/fake_gpus.h"
#include "devices/energy/xrt.h"

namespace mnemo::energy {
namespace {

using namespace testing;  // NOLINT: the tools of these tests

using Catch::Matchers::Contains;

constexpr int kNvmlNotSupported = 3;
constexpr int kNvmlGpuIsLost = 15;
constexpr int kRsmiNotSupported = 2;

// Configuration and surroundings of a test that sees the tree alone.
struct Machine {
  Machine() {
    energy.sources = {"rapl"};
    energy.powercap_root = tree.path().string();
    energy.socket = "";
  }
  std::unique_ptr<EnergySource> Make() {
    absl::StatusOr<std::unique_ptr<EnergySource>> source =
        MakeEnergySource(energy, {.now_ns = world.Now(), .log = world.Log(), .sys = sys.path().string()});
    REQUIRE(source.ok());
    return *std::move(source);
  }
  std::vector<EnergyInterval> Sample(EnergySource* source, double use = 0.5) {
    world.Pass(kTestIntervalNs, use);
    std::vector<EnergyInterval> intervals;
    source->Sample(world.Present(), &intervals);
    return intervals;
  }

  PowercapTree tree;
  mnemo::testing::TempFolder sys;
  TestWorld world;
  config::Config::Energy energy;
};

std::vector<std::string> Labels(const Counters& counters) {
  std::vector<std::string> labels;
  for (const std::unique_ptr<Counter>& counter : counters) labels.push_back(counter->info().device.Label());
  std::sort(labels.begin(), labels.end());
  return labels;
}

TEST_CASE("powercap has packages and DRAM, without psys, parts and the mmio twin") {
  PowercapTree tree;
  tree.AddZone("intel-rapl:0", "package-0");
  tree.AddZone("intel-rapl:0:0", "core");
  tree.AddZone("intel-rapl:0:1", "dram");
  tree.AddZone("intel-rapl:1", "package-1");
  tree.AddZone("intel-rapl:1:0", "dram");
  tree.AddZone("intel-rapl:1:1", "uncore");
  tree.AddZone("intel-rapl:2", "psys");
  tree.AddZone("intel-rapl-mmio:0", "package-0");
  tree.AddZone("intel-rapl:3", "package-2-die-x");
  WriteText(tree.path("intel-rapl") / "enabled", "1\n");
  CHECK(Labels(FindPowercapCounters(tree.path().string())) ==
        std::vector<std::string>{"cpu0", "cpu1", "dram0", "dram1"});
  CHECK(FindPowercapCounters("/nonexistent").empty());
}

TEST_CASE("powercap numbers eight packages by their names and dies in order") {
  PowercapTree tree;
  for (int i = 0; i < 8; ++i) {
    tree.AddZone("intel-rapl:" + std::to_string(i), "package-" + std::to_string(7 - i));
    tree.Set("intel-rapl:" + std::to_string(i), static_cast<uint64_t>(7 - i));
  }
  const Counters counters = FindPowercapCounters(tree.path().string());
  REQUIRE(counters.size() == 8);
  for (const std::unique_ptr<Counter>& counter : counters) {
    CHECK(counter->Read()->count == static_cast<uint64_t>(counter->info().device.index));
  }
  PowercapTree dies;
  dies.AddZone("intel-rapl:0", "package-0-die-0");
  dies.AddZone("intel-rapl:1", "package-0-die-1");
  dies.AddZone("intel-rapl:2", "package-1-die-0");
  dies.AddZone("intel-rapl:2:0", "dram");
  CHECK(Labels(FindPowercapCounters(dies.path().string())) ==
        std::vector<std::string>{"cpu0", "cpu1", "cpu2", "dram2"});
}

TEST_CASE("a tree with wraps, two packages and DRAM gives the joules of each") {
  Machine machine;
  constexpr uint64_t kRange = 5'000'000'000;
  machine.tree.AddZone("intel-rapl:0", "package-0", kRange);
  machine.tree.AddZone("intel-rapl:0:0", "dram", kRange);
  machine.tree.AddZone("intel-rapl:1", "package-1", kRange);
  machine.tree.AddZone("intel-rapl:2", "psys", kRange);
  machine.tree.AddZone("intel-rapl-mmio:0", "package-0", kRange);
  const std::unique_ptr<EnergySource> source = machine.Make();
  double package0 = 0, package1 = 0, dram = 0;
  for (uint64_t i = 0; i <= 1000; ++i) {
    const auto count = [&](uint64_t uj) { return (4'990'000'000 + i * uj) % (kRange + 1); };
    machine.tree.Set("intel-rapl:0", count(12'000'000));
    machine.tree.Set("intel-rapl-mmio:0", count(12'000'000));
    machine.tree.Set("intel-rapl:0:0", count(500'000));
    machine.tree.Set("intel-rapl:1", count(7'000'000));
    machine.tree.Set("intel-rapl:2", count(20'000'000));
    const std::vector<EnergyInterval> intervals = machine.Sample(source.get());
    package0 += Joules(intervals, "cpu0");
    package1 += Joules(intervals, "cpu1");
    dram += Joules(intervals, "dram0");
  }
  CHECK(package0 == Approx(12'000));
  CHECK(package1 == Approx(7'000));
  CHECK(dram == Approx(500));
  CHECK(source->States().size() == 3);
}

TEST_CASE("a model of work gives the energy of time, and its figures") {
  Machine machine;
  machine.tree.AddZone("intel-rapl:0", "package-0");
  machine.energy.model = {"gpu0 idle=30 byte=6e-11 operation=2e-12", "cpu0 idle=100 byte=1e-9 operation=0"};
  const std::unique_ptr<EnergySource> source = machine.Make();
  for (uint64_t i = 1; i <= 200; ++i) {
    machine.tree.Set("intel-rapl:0", i * 2'000'000);
    const std::vector<EnergyInterval> intervals = machine.Sample(source.get());
    if (i == 1) {
      CHECK(intervals.empty());
      continue;
    }
    CHECK(Joules(intervals, "gpu0") == Approx(3));
    CHECK(Joules(intervals, "cpu0") == Approx(2));  // the meter's
    REQUIRE(intervals.size() == 2);
    for (const EnergyInterval& interval : intervals) {
      const bool is_gpu = interval.device.Label() == "gpu0";
      CHECK(interval.device.source == (is_gpu ? "model" : "rapl"));
      CHECK(interval.work.joules_per_byte == (is_gpu ? 6e-11 : 0));
      CHECK(interval.work.joules_per_operation == (is_gpu ? 2e-12 : 0));
    }
  }
  CHECK(StateOf(*source, "gpu0", "model").is_up);
  // Its power without work says nothing about the meter's.
  CHECK(machine.world.log.empty());
  machine.world.Pass(61 * kTestSecondNs);
  machine.Sample(source.get());
  CHECK_FALSE(StateOf(*source, "gpu0", "model").is_up);
  CHECK(StateOf(*source, "gpu0", "model").dropped[static_cast<int>(DropReason::kGap)] == 1);
  CHECK(Joules(machine.Sample(source.get()), "gpu0") == Approx(3));
}

TEST_CASE("mnemo-energy has the counters without models") {
  Machine machine;
  machine.tree.AddZone("intel-rapl:0", "package-0");
  machine.energy.model = {"cpu1 idle=1 busy=2"};
  const std::unique_ptr<EnergySource> source =
      MakeLocalSource(machine.energy, {.now_ns = machine.world.Now()});
  REQUIRE(source != nullptr);
  machine.Sample(source.get());
  machine.tree.Set("intel-rapl:0", 2'000'000);
  CHECK(Joules(machine.Sample(source.get())) == Approx(2));
  CHECK(source->States().size() == 1);
  // Without surroundings of a test: the machine's own clock.
  const std::unique_ptr<EnergySource> real = MakeLocalSource(machine.energy);
  std::vector<EnergyInterval> intervals;
  real->Sample({.now_ns = NowNs()}, &intervals);
  CHECK(intervals.empty());
}

TEST_CASE("files that vanish take the meter down, and it is up again when they are back") {
  Machine machine;
  machine.tree.AddZone("intel-rapl:0", "package-0");
  const std::unique_ptr<EnergySource> source = machine.Make();
  uint64_t uj = 1'000'000;
  const auto run = [&](int rounds) {
    double joules = 0;
    for (int i = 0; i < rounds; ++i) {
      uj += 1'000'000;
      if (std::filesystem::exists(machine.tree.path("intel-rapl:0"))) machine.tree.Set("intel-rapl:0", uj);
      joules += Joules(machine.Sample(source.get()));
    }
    return joules;
  };
  CHECK(run(11) == Approx(10));
  std::filesystem::rename(machine.tree.path("intel-rapl:0"), machine.tree.path("gone"));
  CHECK(run(10) == 0);
  MeterState state = StateOf(*source, "cpu0", "rapl");
  CHECK_FALSE(state.is_up);
  CHECK(state.watts == 0);
  CHECK(state.dropped[static_cast<int>(DropReason::kError)] >= 1);
  std::filesystem::rename(machine.tree.path("gone"), machine.tree.path("intel-rapl:0"));
  CHECK(run(100) > 0);
  CHECK(StateOf(*source, "cpu0", "rapl").is_up);
  machine.tree.Set("intel-rapl:0", 0);
  WriteText(machine.tree.path("intel-rapl:0") / "energy_uj", "many\n");
  machine.Sample(source.get());
  state = StateOf(*source, "cpu0", "rapl");
  CHECK_FALSE(state.is_up);
}

TEST_CASE("without meter and model there is no source, and a model stands in for an absent meter") {
  Machine machine;
  CHECK(machine.Make() == nullptr);
  machine.energy.model = {"cpu0 idle=10 busy=30"};
  const std::unique_ptr<EnergySource> source = machine.Make();
  REQUIRE(source != nullptr);
  machine.Sample(source.get());
  CHECK(Joules(machine.Sample(source.get(), 0.5)) == Approx(0.1 * 20));
  CHECK(StateOf(*source, "cpu0", "model").is_up);
  machine.energy.enabled = false;
  CHECK(machine.Make() == nullptr);
}

// Runs `test` as the user nobody in a child; true when it returns 0.
bool AsNobody(const std::function<int()>& test) {
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(9);
    ::_exit(test());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_CASE("a counter that only root may read is left to mnemo-energy") {
  if (::geteuid() != 0) {
    WARN("not root: a user's own files cannot be closed to it");
    return;
  }
  Machine machine;
  machine.tree.AddZone("intel-rapl:0", "package-0");
  ::chmod((machine.tree.path("intel-rapl:0") / "energy_uj").c_str(), 0400);
  std::filesystem::permissions(machine.tree.path(), std::filesystem::perms(0755));
  const auto make = [&] {
    return MakeEnergySource(
        machine.energy,
        {.now_ns = machine.world.Now(), .log = machine.world.Log(), .sys = machine.sys.path().string()});
  };
  CHECK(AsNobody([&] {
    const auto source = make();
    return source.ok() && *source == nullptr && machine.world.log.size() == 1 ? 0 : 1;
  }));
  machine.energy.socket = "/nonexistent/meters.sock";
  CHECK(AsNobody([&] {
    const auto source = make();
    if (!source.ok() || *source == nullptr) return 1;
    machine.Sample(source->get());
    const MeterState state = StateOf(**source, "cpu0", "rapl");
    return !state.is_up && state.dropped[static_cast<int>(DropReason::kError)] == 1 ? 0 : 2;
  }));
  // A model counts while there are no readings.
  machine.energy.model = {"cpu0 idle=10 busy=30"};
  CHECK(AsNobody([&] {
    const auto source = make();
    if (!source.ok() || *source == nullptr) return 1;
    machine.Sample(source->get());
    return Joules(machine.Sample(source->get(), 1)) == Approx(3) ? 0 : 2;
  }));
}

void WritePerf(const std::filesystem::path& sys) {
  const std::filesystem::path pmu = sys / "bus/event_source/devices/power";
  WriteText(pmu / "type", "23\n");
  WriteText(pmu / "cpumask", "0,18-19\n");
  for (const auto& [name, config] : {std::pair{"energy-pkg", "event=0x02"},
                                     {"energy-ram", "event=0x03"},
                                     {"energy-psys", "event=0x05"},
                                     {"energy-cores", "event=0x01"}}) {
    WriteText(pmu / "events" / name, std::string(config) + "\n");
    WriteText(pmu / "events" / (std::string(name) + ".scale"), "2.3283064365386962890625e-10\n");
    WriteText(pmu / "events" / (std::string(name) + ".unit"), "Joules\n");
  }
  for (const auto& [cpu, package] : {std::pair{0, 0}, {18, 1}, {19, 1}}) {
    WriteText(sys / fmt::format("devices/system/cpu/cpu{}/topology/physical_package_id", cpu),
              std::to_string(package));
  }
}

TEST_CASE("perf reads type, event and scale from sysfs, one counter a package") {
  mnemo::testing::TempFolder sys;
  WritePerf(sys.path());
  std::vector<PerfEvent> opened;
  const auto open = [&](const PerfEvent& event) -> absl::StatusOr<UniqueFd> {
    opened.push_back(event);
    const std::string file = sys.path("count");
    const uint64_t count = uint64_t{1} << 33;
    std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(&count), sizeof(count));
    return UniqueFd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  };
  const Counters counters = FindPerfCounters(sys.path().string(), open);
  CHECK(Labels(counters) == std::vector<std::string>{"cpu0", "cpu1", "dram0", "dram1"});
  for (const std::unique_ptr<Counter>& counter : counters) {
    const absl::StatusOr<RawReading> reading = counter->Read();
    REQUIRE(reading.ok());
    CHECK(static_cast<double>(reading->count) * counter->info().joules_per_count == Approx(2.0));
    // The file has no second number: as with an event whose CPU went off line.
    CHECK(absl::IsUnavailable(counter->Read().status()));
    CHECK(counter->Read().ok());
  }
  REQUIRE(opened.size() == 8);
  CHECK(opened[0].type == 23);
  CHECK(opened[0].config == 2);
  CHECK(opened[2].cpu == 18);
}

TEST_CASE("a perf PMU with other units or texts has no counters") {
  const char* const pmu = "bus/event_source/devices/power";
  for (const auto& [file, text] : {std::pair{"events/energy-pkg.unit", "Watts"},
                                   {"events/energy-pkg.scale", "0"},
                                   {"events/energy-pkg.scale", "x"},
                                   {"events/energy-pkg", "umask=1"},
                                   {"type", "-1"},
                                   {"cpumask", "0-"},
                                   {"cpumask", "9-1"},
                                   {"cpumask", ""}}) {
    INFO(file << " " << text);
    mnemo::testing::TempFolder sys;
    WritePerf(sys.path());
    WriteText(sys.path() / pmu / file, text);
    for (const std::string& label : Labels(FindPerfCounters(sys.path().string()))) CHECK(label != "cpu0");
  }
}

TEST_CASE("a perf event that this process may not open is denied, or it opens") {
  const absl::Status status = SystemOpenPerfEvent({.type = 0xffff, .config = 0, .cpu = 0}).status();
  CHECK((absl::IsUnavailable(status) || absl::IsPermissionDenied(status)));
}

FakeGpus* StateOfLibrary(const char* path) {
  void* const handle = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(handle != nullptr);
  auto* const get = reinterpret_cast<FakeGpus* (*)()>(::dlsym(handle, "FakeGpusState"));
  REQUIRE(get != nullptr);
  FakeGpus* const state = get();
  *state = {};
  return state;
}

TEST_CASE("NVML counts millijoules, in steps of 100 ms") {
  FakeGpus* const gpus = StateOfLibrary(MNEMO_FAKE_NVML);
  gpus->count = 2;
  Machine machine;
  machine.energy.sources = {"nvml"};
  machine.energy.nvml_library = MNEMO_FAKE_NVML;
  {
    const std::unique_ptr<EnergySource> source = machine.Make();
    double first = 0, second = 0;
    for (unsigned i = 0; i <= 200; ++i) {
      machine.world.Pass(40'000'000, 0.1);
      gpus->gpus[0].energy = 1'000'000 + i * 40 / 100 * 30'000;  // 300 W
      gpus->gpus[1].energy = i * 40 / 100 * 5'000;
      std::vector<EnergyInterval> intervals;
      source->Sample(machine.world.Present(), &intervals);
      first += Joules(intervals, "gpu0");
      second += Joules(intervals, "gpu1");
    }
    CHECK(first == Approx(80 * 30));
    CHECK(second == Approx(80 * 5));
    CHECK(StateOf(*source, "gpu0", "nvml").watts == Approx(300).epsilon(0.15));
    // Back without a range, and lost.
    gpus->gpus[0].energy = 5;
    CHECK(Joules(machine.Sample(source.get()), "gpu0") == 0);
    CHECK(StateOf(*source, "gpu0", "nvml").dropped[static_cast<int>(DropReason::kBackwards)] == 1);
    gpus->gpus[1].energy_result = kNvmlGpuIsLost;
    machine.Sample(source.get());
    CHECK_FALSE(StateOf(*source, "gpu1", "nvml").is_up);
    CHECK_THAT(machine.world.log.back(), Contains("gpu1 (nvml) is down, error") && Contains("GPU is lost"));
    const int handles = gpus->handles;
    gpus->gpus[1].energy_result = 0;
    for (unsigned i = 0; i < 40; ++i) {
      gpus->gpus[1].energy += 5'000;
      machine.Sample(source.get());
    }
    CHECK(StateOf(*source, "gpu1", "nvml").is_up);
    CHECK(gpus->handles > handles);
  }
  CHECK(gpus->stops == gpus->starts);
}

TEST_CASE("NVML without a count of energy gives instant power, not the average") {
  FakeGpus* const gpus = StateOfLibrary(MNEMO_FAKE_NVML);
  gpus->count = 3;
  for (FakeGpu& gpu : gpus->gpus) gpu.energy_result = kNvmlNotSupported;
  gpus->gpus[0].instant_mw = 100'000;
  gpus->gpus[0].average_mw = 40'000;
  gpus->gpus[1].field_result = kNvmlNotSupported;
  gpus->gpus[1].average_mw = 60'000;
  gpus->gpus[2].field_result = kNvmlNotSupported;
  gpus->gpus[2].power_result = kNvmlNotSupported;
  Machine machine;
  machine.energy.sources = {"nvml"};
  machine.energy.nvml_library = MNEMO_FAKE_NVML;
  const std::unique_ptr<EnergySource> source = machine.Make();
  double first = 0, second = 0;
  for (int i = 0; i <= 10; ++i) {
    const std::vector<EnergyInterval> intervals = machine.Sample(source.get());
    first += Joules(intervals, "gpu0");
    second += Joules(intervals, "gpu1");
  }
  CHECK(first == Approx(100));
  CHECK(second == Approx(60));
  // The third one can say nothing: told once, and no meter.
  CHECK(StateOf(*source, "gpu2", "nvml").device.source == "absent");
  REQUIRE(machine.world.log.size() == 1);
  CHECK_THAT(machine.world.log[0], Contains("gpu2 has no counter for nvml"));
}

TEST_CASE("a library that is absent is silent, and one that does not start is told once") {
  Machine machine;
  machine.energy.sources = {"nvml", "rocm_smi"};
  machine.energy.nvml_library = "libabsent-nvml.so.1";
  machine.energy.rocm_smi_library = "/nonexistent/librocm.so";
  CHECK(machine.Make() == nullptr);
  CHECK(machine.world.log.empty());
  FakeGpus* const gpus = StateOfLibrary(MNEMO_FAKE_NVML);
  gpus->start_result = 9;  // DRIVER_NOT_LOADED
  machine.energy.nvml_library = MNEMO_FAKE_NVML;
  CHECK(machine.Make() == nullptr);
  REQUIRE(machine.world.log.size() == 1);
  CHECK_THAT(machine.world.log[0], Contains("nvmlInit_v2") && Contains("(9)"));
  CHECK(gpus->stops == 0);
  // A library without the functions.
  CHECK(absl::IsNotFound(FindNvmlCounters(MNEMO_FAKE_ROCM_SMI).status()));
  CHECK(absl::IsNotFound(FindRocmSmiCounters(MNEMO_FAKE_NVML).status()));
}

TEST_CASE("ROCm SMI multiplies its count by the resolution, behind the GPUs of NVML") {
  FakeGpus* const nvidia = StateOfLibrary(MNEMO_FAKE_NVML);
  FakeGpus* const amd = StateOfLibrary(MNEMO_FAKE_ROCM_SMI);
  nvidia->count = 1;
  amd->count = 2;
  amd->gpus[1].energy_result = kRsmiNotSupported;
  Machine machine;
  machine.energy.sources = {"nvml", "rocm_smi"};
  machine.energy.nvml_library = MNEMO_FAKE_NVML;
  machine.energy.rocm_smi_library = MNEMO_FAKE_ROCM_SMI;
  const std::unique_ptr<EnergySource> source = machine.Make();
  double joules = 0;
  for (unsigned i = 0; i <= 100; ++i) {
    amd->gpus[0].energy = i * 1'000'000;
    nvidia->gpus[0].energy = i * 1000;
    joules += Joules(machine.Sample(source.get()), "gpu1");
  }
  CHECK(joules == Approx(100 * 15.3).epsilon(1e-6));
  CHECK(StateOf(*source, "gpu0", "nvml").joules_total == Approx(100));
  CHECK(source->States().size() == 2);
  // The count goes back, as it does on some cards.
  amd->gpus[0].energy = 7;
  machine.Sample(source.get());
  CHECK(StateOf(*source, "gpu1", "rocm_smi").dropped[static_cast<int>(DropReason::kBackwards)] == 1);
  amd->gpus[0].resolution_uj = 0;
  machine.Sample(source.get());
  CHECK(StateOf(*source, "gpu1", "rocm_smi").dropped[static_cast<int>(DropReason::kError)] == 1);
}

TEST_CASE("power of a card is read from XRT's electrical JSON") {
  CHECK(*ParseElectricalWatts(R"({"power_consumption_max_watts":"225","power_consumption_watts":"24.5"})") ==
        24.5);
  CHECK(*ParseElectricalWatts(R"({"power_consumption_watts": 30, "power_rails": []})") == 30);
  CHECK(absl::IsUnimplemented(ParseElectricalWatts(R"({"power_consumption_watts":"N/A"})").status()));
  CHECK(absl::IsUnimplemented(ParseElectricalWatts("{}").status()));
  for (const char* bad : {"", "[]", "{", "7", R"({"power_consumption_watts":"24 W"})",
                          R"({"power_consumption_watts":null})", R"({"power_consumption_watts":""})"}) {
    INFO(bad);
    CHECK(absl::IsDataLoss(ParseElectricalWatts(bad).status()));
  }
  std::string json = R"({"power_consumption_watts":"20.0"})";
  const std::unique_ptr<Counter> counter =
      MakeElectricalCounter(2, [&] { return absl::StatusOr<std::string>(json); });
  CHECK(counter->info().is_power);
  CHECK(counter->info().device.Label() == "fpga2");
  CHECK(counter->Read()->watts == 20);
}

TEST_CASE("the first line of /proc/stat gives busy and idle time") {
  mnemo::testing::TempFolder folder;
  // 100 ticks a second, which Linux has for programs everywhere.
  const std::string path =
      folder.Write("stat", "cpu  100 20 30 400 50 6 4 10 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
  const absl::StatusOr<CpuTimes> times = ReadCpuTimes(path);
  REQUIRE(times.ok());
  CHECK(times->busy_seconds == Approx(1.6));
  CHECK(times->idle_seconds == Approx(4.6));
  for (const char* bad :
       {"", "cpu0 1 2 3 4 5 6 7 8", "cpu  1 2 3", "cpu  1 2 x 4 5 6 7 8", "cpu  1 2 -3 4 5 6 7 8"}) {
    CHECK(absl::IsDataLoss(ReadCpuTimes(folder.Write("bad", bad)).status()));
  }
  CHECK_FALSE(ReadCpuTimes("/nonexistent").ok());
  const absl::StatusOr<CpuTimes> here = ReadCpuTimes();
  REQUIRE(here.ok());
  CHECK(here->busy_seconds > 0);
}

TEST_CASE("a file of one number follows its count, tells absent from malformed, and opens a new file") {
  mnemo::testing::TempFolder folder;
  CHECK(absl::IsNotFound(ReadNumber("/nonexistent/a").status()));
  CHECK(*ReadNumber(folder.Write("a", "18446744073709551615\n")) == UINT64_MAX);
  NumberFile kept(folder.Write("c", "5\n"));
  CHECK(*kept.Read() == 5);
  folder.Write("c", "6\n");
  CHECK(*kept.Read() == 6);
  const std::filesystem::path path = folder.path() / "c";
  std::filesystem::rename(folder.Write("d", "7\n"), path);
  CHECK(*kept.Read() == 7);
  std::filesystem::remove(path);
  CHECK(absl::IsNotFound(kept.Read().status()));
  folder.Write("c", "8\n");
  CHECK(*kept.Read() == 8);
  for (const char* bad : {"", "-1", "1.5", "18446744073709551616", "7 8", "x"}) {
    CHECK(absl::IsDataLoss(ReadNumber(folder.Write("b", bad)).status()));
  }
}

}  // namespace
}  // namespace mnemo::energy
