// Range checks: of values against their bounds, and of byte ranges against the size that holds them.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "devices/base/status.h"

namespace mnemo {

// Returns whether [offset, offset + length) lies within [0, size). Correct for all arguments: no sum
// overflows.
constexpr bool IsWithin(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

// Returns OK when `value` is in [low, high], else INVALID_ARGUMENT "FIELD is VALUE; allowed: LOW to HIGH",
// followed by `why`. NaN is in no range.
template <typename T>
absl::Status CheckRange(std::string_view field, T value, std::type_identity_t<T> low,
                        std::type_identity_t<T> high, std::string_view why = "") {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; allowed: {} to {}{}", field, value, low, high, why);
}

// The same for a field of a public request: "FIELD: VALUE is out of range; allowed: [LOW, HIGH]".
template <typename T>
absl::Status CheckFieldRange(std::string_view field, T value, std::type_identity_t<T> low,
                             std::type_identity_t<T> high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{}: {} is out of range; allowed: [{}, {}]", field, value, low, high);
}

}  // namespace mnemo
