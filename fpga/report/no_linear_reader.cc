// For builds without the simulated card.
#include "fpga/report/linear_reader.h"

namespace mnemo::card::report {

std::optional<double> LinearReaderRate(double /*clock_mhz*/) { return std::nullopt; }

}  // namespace mnemo::card::report
