// Memory processing in the terms of Prometheus, from what workers and memory services report.
#pragma once

#include <vector>

#include "server/dispatch/dispatcher.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

std::vector<telemetry::ForeignFamily> MemoryFamilies(const std::vector<dispatch::WorkerSnapshot>& workers,
                                                     const std::vector<dispatch::MemorySnapshot>& services);

}  // namespace mnemo::frontend
