// Counters of NVIDIA GPUs, by NVML.
#pragma once

#include <string>

#include "devices/energy/counter.h"

namespace mnemo::energy {

// Opens `library` (libnvidia-ml.so.1). One counter for each GPU: its total energy in mJ (Volta and later),
// else its present power. Empty Counters: the library finds no GPU. NOT_FOUND: the library or one of its
// functions is not there. UNAVAILABLE: it does not start. Blocks for the library's start, up to seconds.
absl::StatusOr<Counters> FindNvmlCounters(const std::string& library);

}  // namespace mnemo::energy
