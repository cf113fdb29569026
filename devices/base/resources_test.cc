// Tests against file trees made here and against the machine itself.
#include "devices/base/resources.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/temp_folder.h"

namespace mnemo {
namespace {

constexpr int64_t kMiB = 1 << 20;

// A machine of 64 GiB and 16 cores with the control groups that the test gives it.
class Machine {
 public:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_.path() / path.substr(1);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void Groups(const std::string& text) { Write("/proc/self/cgroup", text); }
  void Mounts(const std::string& text) {
    Write("/proc/self/mountinfo", "22 1 0:21 / /proc rw,nosuid shared:1 - proc proc rw\n" + text);
  }
  // Version 2 mounted whole, with the process in `group`.
  void Unified(const std::string& group) {
    Groups("0::" + group + "\n");
    Mounts("30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  Resources Read() const {
    return AvailableResources({.root = folder_.path().string(),
                               .physical_bytes = 65536 * kMiB,
                               .affinity_cores = 16,
                               .address_space_bytes = INT64_MAX,
                               .data_bytes = INT64_MAX});
  }

 private:
  testing::TempFolder folder_;
};

TEST_CASE("without control groups the machine sets the limits") {
  Machine machine;
  const Resources resources = machine.Read();
  CHECK(resources.memory_bytes == 65536 * kMiB);
  CHECK(resources.memory_bound == "physical memory");
  CHECK(resources.process_bytes == INT64_MAX);
  CHECK(resources.process_bound.empty());
  CHECK(resources.cores == 16);
  CHECK(resources.warnings.empty());
}

TEST_CASE("version 2: the minimum of the group and those above it") {
  Machine machine;
  machine.Unified("/system.slice/mnemo.service");
  const std::string root = "/sys/fs/cgroup", slice = root + "/system.slice", unit = slice + "/mnemo.service";
  machine.Write(unit + "/memory.max", "max\n");
  machine.Write(unit + "/cpu.max", "max 100000\n");
  CHECK(machine.Read().memory_bytes == 65536 * kMiB);
  CHECK(machine.Read().cores == 16);
  SECTION("its own") {
    machine.Write(unit + "/memory.max", fmt::format("{}\n", 512 * kMiB));
    machine.Write(slice + "/memory.max", fmt::format("{}\n", 1024 * kMiB));
    CHECK(machine.Read().memory_bytes == 512 * kMiB);
    CHECK(machine.Read().memory_bound == "memory.max of " + unit);
  }
  SECTION("of the one above") {
    machine.Write(unit + "/memory.max", fmt::format("{}\n", 2048 * kMiB));
    machine.Write(slice + "/memory.max", fmt::format("{}\n", 1024 * kMiB));
    CHECK(machine.Read().memory_bytes == 1024 * kMiB);
    CHECK(machine.Read().memory_bound == "memory.max of " + slice);
  }
  SECTION("where the kernel begins to throttle") {
    machine.Write(unit + "/memory.high", fmt::format("{}\n", 300 * kMiB));
    machine.Write(unit + "/memory.max", fmt::format("{}\n", 512 * kMiB));
    CHECK(machine.Read().memory_bytes == 300 * kMiB);
    CHECK(machine.Read().memory_bound == "memory.high of " + unit);
  }
  SECTION("whole cores of the quota, at least one") {
    const auto cores = [&](const std::string& quota) {
      machine.Write(unit + "/cpu.max", quota + "\n");
      return machine.Read().cores;
    };
    CHECK(cores("300000 100000") == 3);
    CHECK(cores("350000 100000") == 3);
    CHECK(cores("20000 10000") == 2);
    CHECK(cores("50000 100000") == 1);
    CHECK(cores("9900000 100000") == 16);
    machine.Write(slice + "/cpu.max", "200000 100000\n");
    CHECK(cores("500000 100000") == 2);
    CHECK(machine.Read().cores_bound == "cpu.max of " + slice);
  }
  SECTION("the set of cores") {
    machine.Write(unit + "/cpuset.cpus.effective", "0-2,5,8-9\n");
    CHECK(machine.Read().cores == 6);
    machine.Write(unit + "/cpuset.cpus.effective", "\n");
    CHECK(machine.Read().cores == 16);
  }
}

TEST_CASE("version 1: limits of the memory and the CPU controller, in hierarchies of their own") {
  Machine machine;
  machine.Groups("4:memory:/a/b\n3:cpuset:/\n2:cpu,cpuacct:/c\n0::/\n");
  machine.Mounts(
      "31 23 0:28 / /cg\\040roups rw - tmpfs tmpfs rw\n"
      "32 31 0:29 / /cg\\040roups/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 / /cg\\040roups/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory\n"
      "36 31 0:33 / /cg\\040roups/unified rw - cgroup2 cgroup2 rw\n");
  const std::string memory = "/cg roups/memory", cpu = "/cg roups/cpu,cpuacct";
  machine.Write(memory + "/memory.limit_in_bytes", "9223372036854771712\n");
  machine.Write(memory + "/a/memory.limit_in_bytes", fmt::format("{}\n", 900 * kMiB));
  machine.Write(memory + "/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  machine.Write(cpu + "/c/cpu.cfs_quota_us", "-1\n");
  machine.Write(cpu + "/c/cpu.cfs_period_us", "100000\n");
  CHECK(machine.Read().memory_bytes == 900 * kMiB);
  CHECK(machine.Read().memory_bound == "memory.limit_in_bytes of " + memory + "/a");
  CHECK(machine.Read().cores == 16);
  machine.Write(cpu + "/c/cpu.cfs_quota_us", "400000\n");
  CHECK(machine.Read().cores == 4);
  // A limit of a group above that this process does not see.
  machine.Write(
      memory + "/a/b/memory.stat",
      fmt::format("cache 4096\nhierarchical_memory_limit {}\nhierarchical_memsw_limit 1\n", 700 * kMiB));
  CHECK(machine.Read().memory_bytes == 700 * kMiB);
  CHECK(machine.Read().warnings.empty());
}

TEST_CASE("inside a container the mount point is the group") {
  Machine machine;
  const std::string root = GENERATE("/docker/0a1b", "/");
  const std::string group = GENERATE("/docker/0a1b", "/", "/../../elsewhere");
  machine.Groups("0::" + group + "\n");
  machine.Mounts("30 23 0:27 " + root + " /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  machine.Write("/sys/fs/cgroup/memory.max", fmt::format("{}\n", 256 * kMiB));
  CHECK(machine.Read().memory_bytes == 256 * kMiB);
}

TEST_CASE("unparsable limits give a warning and set no limit") {
  Machine machine;
  machine.Unified("/g");
  const std::string text = GENERATE("", "many", "-5", "12 MiB", "99999999999999999999999", "0x10", "1.5");
  CAPTURE(text);
  machine.Write("/sys/fs/cgroup/g/memory.max", text + "\n");
  machine.Write("/sys/fs/cgroup/g/memory.high", fmt::format("{}\n", 256 * kMiB));
  Resources resources = machine.Read();
  CHECK(resources.memory_bytes == 256 * kMiB);
  REQUIRE(resources.warnings.size() == 1);
  CHECK_THAT(resources.warnings[0], Catch::Contains("/sys/fs/cgroup/g/memory.max"));
  for (const char* quota : {"1 2 3", "0 100000", "100000 0", "-1 100000", "x y"}) {
    machine.Write("/sys/fs/cgroup/g/cpu.max", quota);
    resources = machine.Read();
    CHECK(resources.cores == 16);
    CHECK(resources.warnings.size() == 2);
  }
  machine.Write("/sys/fs/cgroup/g/cpuset.cpus.effective", "3-1");
  CHECK(machine.Read().warnings.size() == 3);
  // Malformed lists of groups and mounts do not end the process either.
  machine.Groups("memory\n::\n:\n\n4:memory\n");
  machine.Mounts("- cgroup2\n30 23 0:27 / /x rw - cgroup2\n\n");
  CHECK(machine.Read().memory_bytes == 65536 * kMiB);
}

TEST_CASE("limits of the process") {
  ResourceSources sources = {.root = "/nonexistent",
                             .physical_bytes = 65536 * kMiB,
                             .affinity_cores = 2,
                             .address_space_bytes = 4096 * kMiB,
                             .data_bytes = INT64_MAX};
  CHECK(AvailableResources(sources).process_bytes == 4096 * kMiB);
  CHECK(AvailableResources(sources).process_bound == "RLIMIT_AS (ulimit -v)");
  CHECK(AvailableResources(sources).memory_bytes == 65536 * kMiB);
  sources.data_bytes = 1024 * kMiB;
  CHECK(AvailableResources(sources).process_bytes == 1024 * kMiB);
  CHECK(AvailableResources(sources).process_bound == "RLIMIT_DATA (ulimit -d)");
}

TEST_CASE("this machine: the affinity of the thread and its resource limits apply") {
  const Resources before = AvailableResources();
  CHECK(before.memory_bytes > 0);
  CHECK(before.memory_bytes <= int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE));
  CHECK(before.cores <= ::sysconf(_SC_NPROCESSORS_ONLN));
  std::thread([] {
    cpu_set_t set;
    REQUIRE(::sched_getaffinity(0, sizeof set, &set) == 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    REQUIRE(::sched_setaffinity(0, sizeof set, &set) == 0);
    CHECK(AvailableResources().cores == 1);
  }).join();
  struct rlimit old = {};
  REQUIRE(::getrlimit(RLIMIT_AS, &old) == 0);
  const struct rlimit lower = {std::min<rlim_t>(old.rlim_max, rlim_t{1} << 45), old.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_AS, &lower) == 0);
  CHECK(AvailableResources().process_bytes == static_cast<int64_t>(lower.rlim_cur));
  REQUIRE(::setrlimit(RLIMIT_AS, &old) == 0);
}

}  // namespace
}  // namespace mnemo
