// Counters of the kernel's powercap zones: RAPL of Intel and AMD packages and of DRAM.
#pragma once

#include <string>

#include "devices/energy/counter.h"

namespace mnemo::energy {

// Counters of the zones below `root` (/sys/class/powercap) whose name is package-N, package-N-die-M or dram.
// Left out are psys, which holds the packages, core and uncore, which are parts of them, and intel-rapl-mmio,
// which repeats them. Empty without such zones. Does not read the counters, which are root's alone since
// Linux 5.10 (CVE-2020-8694). Blocks to read sysfs.
Counters FindPowercapCounters(const std::string& root);

}  // namespace mnemo::energy
