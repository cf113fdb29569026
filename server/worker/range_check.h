// The check that a figure is within its bounds.
#pragma once

#include <string_view>

#include "devices/base/status.h"

namespace mnemo::worker {

// INVALID_ARGUMENT names `field` and its bounds, which are both allowed, and ends with `why`. NaN is in no
// range. Integers up to 2^53 are exact.
inline absl::Status CheckRange(std::string_view field, double value, double low, double high,
                               std::string_view why = "") {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; allowed: {} to {}{}", field, value, low, high, why);
}

}  // namespace mnemo::worker
