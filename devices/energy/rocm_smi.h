// Counters of AMD GPUs, by ROCm SMI.
#pragma once

#include <string>

#include "devices/energy/counter.h"

namespace mnemo::energy {

// Opens `library` (librocm_smi64.so). One counter for each GPU: its accumulated energy, which is the count
// times a resolution in uJ. The first GPU is number `first_index`, after those of other vendors. Errors as
// FindNvmlCounters. Blocks for the library's start.
absl::StatusOr<Counters> FindRocmSmiCounters(const std::string& library, int first_index = 0);

}  // namespace mnemo::energy
