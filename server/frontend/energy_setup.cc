#include "server/frontend/energy_setup.h"

#include <spdlog/spdlog.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "config/energy_texts.h"
#include "devices/energy/make_energy_source.h"

namespace mnemo::frontend {

absl::StatusOr<std::unique_ptr<attribution::EnergyMonitor>> MakeEnergyMonitor(
    const config::Config::Energy& energy) {
  energy::Surroundings surroundings;
  surroundings.log = [](const std::string& line) { spdlog::warn("energy: {}", line); };
  attribution::MonitorOptions options;
  MNEMO_ASSIGN_OR_RETURN(options.source, energy::MakeEnergySource(energy, std::move(surroundings)));
  if (options.source == nullptr) return nullptr;
  std::map<std::string, double> configured;
  MNEMO_ASSIGN_OR_RETURN(const std::vector<config::DeviceWatts> watts,
                         config::ParseIdleWatts(energy.idle_watts));
  for (const config::DeviceWatts& device : watts) configured[device.device] = device.watts;
  MNEMO_ASSIGN_OR_RETURN(const std::vector<config::ModelFigures> model,
                         config::ParseEnergyModel(energy.model));
  options.ledger.idle_watts = [configured,
                               model](const energy::MeteredDevice& device) -> std::optional<double> {
    const auto at = configured.find(device.Label());
    if (at != configured.end()) return at->second;
    // The model of a device has its idle power.
    for (const config::ModelFigures& figures : model) {
      if (device.source == "model" && figures.device == device.Label()) return figures.idle_watts;
    }
    spdlog::info(
        "energy: {}: the power without work is 0 W until it is measured in seconds without requests "
        "(energy.idle_watts)",
        device.Label());
    return std::nullopt;
  };
  options.ledger.idle_share =
      energy.idle_share == "none" ? attribution::IdleShare::kNone : attribution::IdleShare::kBusy;
  options.interval = std::chrono::milliseconds(energy.interval_ms);
  return std::make_unique<attribution::EnergyMonitor>(std::move(options));
}

}  // namespace mnemo::frontend
