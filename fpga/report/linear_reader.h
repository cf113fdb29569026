#pragma once

// A plain reader of one channel of the simulated card's memory, the yardstick of a scan.

#include <optional>

namespace mnemo::card::report {

// Bytes a microsecond that a reader gets which asks for bursts of 4 KiB in a row, as many at once as the
// lane's reader may. None when the build has no model of the card's memory.
std::optional<double> LinearReaderRate(double clock_mhz);

}  // namespace mnemo::card::report
