// Energy in the terms of Prometheus and of Admin.Energy.
#pragma once

#include <vector>

#include "mnemo/v1/admin.pb.h"
#include "server/dispatch/dispatcher.h"
#include "server/telemetry/energy/energy_monitor.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

// Families of devices that have been read at least once, and of meters that are known.
std::vector<telemetry::ForeignFamily> EnergyFamilies(const attribution::EnergySnapshot& snapshot);

// `tokens`: output tokens of running requests.
void FillEnergyResponse(const attribution::EnergyMonitor& monitor,
                        const std::vector<dispatch::RunningRequest>& tokens, v1::EnergyResponse* response);

}  // namespace mnemo::frontend
