// Memory and cores that this process may use, which containers, service managers and shells make less than
// what the machine has.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mnemo {

// Where the figures come from. Tests put a tree of their own in place of the machine's.
struct ResourceSources {
  std::string root;  // in front of /proc/self/... and of the mount points of control groups
  // Instead of what the system says.
  std::optional<int64_t> physical_bytes;
  std::optional<int> affinity_cores;
  std::optional<int64_t> address_space_bytes;  // RLIMIT_AS
  std::optional<int64_t> data_bytes;           // RLIMIT_DATA
};

struct Resources {
  // For all processes of the daemon together: the least of physical memory and, of its control group and all
  // groups above, memory.max and memory.high (version 2), memory.limit_in_bytes and hierarchical_memory_limit
  // (version 1).
  int64_t memory_bytes = 0;
  std::string memory_bound;  // its name for people: "physical memory", "memory.max of /sys/fs/cgroup/a"
  // For each process: the lesser of RLIMIT_AS and RLIMIT_DATA; INT64_MAX when there is neither.
  int64_t process_bytes = INT64_MAX;
  std::string process_bound;  // "RLIMIT_AS (ulimit -v)"; empty when there is none
  // At least 1: the least of the affinity mask, the cpuset, and the whole cores of each CPU quota (cpu.max,
  // cpu.cfs_quota_us) of the group and those above. A quota's fraction of a core is left out, since threads
  // beyond the quota stand still together.
  int cores = 1;
  std::string cores_bound;
  // Files of control groups that could not be understood; they bound nothing. One line each.
  std::vector<std::string> warnings;
};

// Reads some small files; no failure: what cannot be read bounds nothing.
Resources AvailableResources(const ResourceSources& sources = {});

}  // namespace mnemo
