#include "fpga/xrt/card_power.h"

#include <absl/strings/numbers.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace mnemo::xrt_card {

namespace {

// A number above 0: a card without a sensor tells 0. XRT writes numbers as texts.
std::optional<double> Positive(const nlohmann::json& sensors, const char* key) {
  const auto found = sensors.find(key);
  if (found == sensors.end()) return std::nullopt;
  double value = 0;
  if (found->is_number()) {
    value = found->get<double>();
  } else if (!found->is_string() || !absl::SimpleAtod(found->get<std::string>(), &value)) {
    return std::nullopt;
  }
  return std::isfinite(value) && value > 0 ? std::optional(value) : std::nullopt;
}

nlohmann::json Parse(const std::string& text) {
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::optional<double> WattsOf(const std::string& electrical) {
  const nlohmann::json sensors = Parse(electrical);
  return sensors.is_object() ? Positive(sensors, "power_consumption_watts") : std::nullopt;
}

std::optional<double> DegreesOf(const std::string& thermal) {
  const nlohmann::json sensors = Parse(thermal);
  if (!sensors.is_object() || !sensors.contains("thermals")) return std::nullopt;
  std::optional<double> highest;
  for (const nlohmann::json& sensor : sensors["thermals"]) {
    if (!sensor.is_object()) continue;
    const std::optional<double> degrees = Positive(sensor, "temp_C");
    if (degrees.has_value() && (!highest.has_value() || *degrees > *highest)) highest = degrees;
  }
  return highest;
}

}  // namespace mnemo::xrt_card
