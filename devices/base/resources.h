// Memory and cores available to this process. Containers, service managers and shells may set less than the
// machine has.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mnemo {

// Sources of the figures. Tests substitute their own file tree for the machine's.
struct ResourceSources {
  // Path prefix for /proc/self/... and for the mount points of control groups.
  std::string root;
  // Values that replace those of the system.
  std::optional<int64_t> physical_bytes;
  std::optional<int> affinity_cores;
  // Replaces RLIMIT_AS.
  std::optional<int64_t> address_space_bytes;
  // Replaces RLIMIT_DATA.
  std::optional<int64_t> data_bytes;
};

struct Resources {
  // Limit for all processes of the daemon together: the minimum of physical memory and the limits of its
  // control group and all groups above. Version 2: memory.max and memory.high. Version 1:
  // memory.limit_in_bytes and hierarchical_memory_limit.
  int64_t memory_bytes = 0;
  // Display name of the limit that applies: "physical memory", "memory.max of /sys/fs/cgroup/a".
  std::string memory_bound;
  // Limit for each process: the lesser of RLIMIT_AS and RLIMIT_DATA; INT64_MAX when there is neither.
  int64_t process_bytes = INT64_MAX;
  // Display name, "RLIMIT_AS (ulimit -v)"; empty when there is no limit.
  std::string process_bound;
  // Usable cores, at least 1: the minimum of the affinity mask, the cpuset, and the whole cores of each CPU
  // quota (cpu.max, cpu.cfs_quota_us) of the group and the groups above. A quota's fraction of a core is left
  // out, because the kernel stops all threads together once the quota is used up.
  int cores = 1;
  std::string cores_bound;
  // Control group files that could not be parsed, one line each; they set no limit.
  std::vector<std::string> warnings;
};

// Reads a few small files. Never fails: a file that cannot be read sets no limit.
Resources AvailableResources(const ResourceSources& sources = {});

}  // namespace mnemo
