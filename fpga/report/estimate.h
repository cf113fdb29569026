#pragma once

// Times of a workload on a card, by the cycle estimate of the functional model (fpga/card/model/timing.h):
// formulas, no simulation.

#include <cstdint>

#include "fpga/card/model/jobs.h"
#include "fpga/report/workload.h"

namespace mnemo::card::report {

struct Estimate {
  double us = 0;         // of what the workload measures
  double scan_us = 0;    // of one head's scan
  double select_us = 0;  // of one head's selection
  // Rate of the scan over that of a plain linear reader in the same channels, at most 1.
  double reader_share = 0;
  uint64_t bytes = 0;  // of all heads' blocks that are read
};

// The channels give what they give whatever the clock. The second stage of a cascade is left out: the sign
// stage alone counts. Of a descriptor the card knows the index, and queries of its size.
Estimate EstimateOf(const Workload& workload, const model::Shape& shape, double clock_mhz);

}  // namespace mnemo::card::report
