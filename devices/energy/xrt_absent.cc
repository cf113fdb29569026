#include "devices/energy/xrt.h"

namespace mnemo::energy {

absl::StatusOr<Counters> FindXrtCounters() { return Unimplemented("this build has no XRT"); }

}  // namespace mnemo::energy
