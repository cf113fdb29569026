// Power of a card as XRT tells it.
#pragma once

#include <optional>
#include <string>

namespace mnemo::xrt_card {

// Watts of the whole card from xrt::info::device::electrical; none: the card has no such sensor.
std::optional<double> WattsOf(const std::string& electrical);

}  // namespace mnemo::xrt_card
