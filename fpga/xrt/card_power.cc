#include "fpga/xrt/card_power.h"

#include <absl/strings/numbers.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace mnemo::xrt_card {

std::optional<double> WattsOf(const std::string& electrical) {
  const nlohmann::json sensors = nlohmann::json::parse(electrical, nullptr, /*allow_exceptions=*/false);
  if (!sensors.is_object()) return std::nullopt;
  const auto found = sensors.find("power_consumption_watts");
  if (found == sensors.end()) return std::nullopt;
  double watts = 0;
  if (found->is_number()) {
    watts = found->get<double>();
  } else if (!found->is_string() || !absl::SimpleAtod(found->get<std::string>(), &watts)) {
    return std::nullopt;
  }
  // A card without a sensor tells 0.
  return std::isfinite(watts) && watts > 0 ? std::optional(watts) : std::nullopt;
}

}  // namespace mnemo::xrt_card
