// The monitor of energy as the configuration wants it.
#pragma once

#include <memory>

#include "config/config.h"
#include "devices/base/status.h"
#include "server/telemetry/energy/energy_monitor.h"

namespace mnemo::frontend {

// Without a thread yet. nullptr: the machine has neither meter nor model, or energy.enabled is false.
// INVALID_ARGUMENT names the setting.
absl::StatusOr<std::unique_ptr<attribution::EnergyMonitor>> MakeEnergyMonitor(
    const config::Config::Energy& energy);

}  // namespace mnemo::frontend
