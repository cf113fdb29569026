#pragma once

// The whole time of a descriptor on the simulated card, by its clock: from the write of the doorbell until
// the completion is visible in memory.

#include <cstdint>

#include "devices/base/status.h"
#include "fpga/report/workload.h"

namespace mnemo::card::report {

// Cycles of one descriptor while the card has nothing else to do.
struct WholeCycles {
  uint64_t first = 0;  // of an index and of queries that the card has not seen yet
  uint64_t again = 0;  // the same descriptor once more
};

struct WholeTimes {
  uint32_t channels = 0;
  // From the first job to the last result, as the completion of `host.again` has them.
  double jobs_us = 0;
  WholeCycles host;  // the driver's queue: ring, queries, results and completions in host memory
  WholeCycles card;  // a direct queue with all of them in card memory; its index table is the driver's
};

// UNIMPLEMENTED: the build has no simulated card, or that has not the operation. INTERNAL: the card answered
// with another status, or the two queues have got different results.
absl::StatusOr<WholeTimes> RunWhole(const Workload& workload, double clock_mhz);

}  // namespace mnemo::card::report
