// The machine's meters, as the configuration names them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "config/config.h"
#include "devices/energy/energy_meter.h"
#include "devices/energy/perf.h"

namespace mnemo::energy {

// The world around the meters; tests replace it.
struct Surroundings {
  std::function<int64_t()> now_ns;              // empty: CLOCK_MONOTONIC
  std::function<void(const std::string&)> log;  // a line for the operator; empty: none
  std::string sys = "/sys";                     // for perf
  OpenPerfEvent open_perf_event = SystemOpenPerfEvent;
};

// All meters of `energy.sources`, those of mnemo-energy for counters that this process may not read, and the
// models of energy.model. Null: energy.enabled is false, or there is neither a meter nor a model. A source
// that is missing is no error. INVALID_ARGUMENT: energy.model is malformed, which the loader of the
// configuration refuses earlier. Blocks to open vendors' libraries, up to seconds.
absl::StatusOr<std::unique_ptr<EnergySource>> MakeEnergySource(const config::Config::Energy& energy,
                                                               Surroundings surroundings = {});
// The same for mnemo-energy: counters alone, and all of them.
std::unique_ptr<EnergySource> MakeLocalSource(const config::Config::Energy& energy,
                                              Surroundings surroundings = {});

}  // namespace mnemo::energy
