// For builds without the simulated card.
#include "fpga/report/whole_run.h"

namespace mnemo::card::report {

absl::StatusOr<WholeTimes> RunWhole(const Workload& /*workload*/, double /*clock_mhz*/) {
  return absl::UnimplementedError("this build has no simulated card");
}

}  // namespace mnemo::card::report
