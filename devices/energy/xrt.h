// Counters of AMD (Xilinx) cards, by XRT: the power of the card, integrated.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "devices/energy/counter.h"

namespace mnemo::energy {

// power_consumption_watts of the JSON that XRT gives for xrt::info::device::electrical. UNIMPLEMENTED: the
// card has no such figure. DATA_LOSS: no JSON of that form.
absl::StatusOr<double> ParseElectricalWatts(const std::string& json);

// The counter of card `index`; `read` gives its electrical JSON.
std::unique_ptr<Counter> MakeElectricalCounter(int index, std::function<absl::StatusOr<std::string>()> read);

// A counter for each card that XRT finds. UNIMPLEMENTED: this build has no XRT. Blocks to open the cards.
absl::StatusOr<Counters> FindXrtCounters();

}  // namespace mnemo::energy
