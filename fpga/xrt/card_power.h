// Power and temperature of a card as XRT tells them.
#pragma once

#include <optional>
#include <string>

namespace mnemo::xrt_card {

// Watts of the whole card from xrt::info::device::electrical; none: the card has no such sensor.
std::optional<double> WattsOf(const std::string& electrical);

// The highest temperature of xrt::info::device::thermal, in degrees Celsius; none: the card has no such
// sensor.
std::optional<double> DegreesOf(const std::string& thermal);

}  // namespace mnemo::xrt_card
