// Values of device options (memory_device_registry.h). Errors are INVALID_ARGUMENT and name the option, the
// value and what is allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::memory_device {

struct NumberOption {
  std::string_view key;
  uint64_t least = 0;
  uint64_t most = UINT64_MAX;
  bool power_of_two = false;
};

// A whole number.
absl::StatusOr<uint64_t> ParseNumber(const NumberOption& option, const std::string& text);

// Which of `names` the text is.
absl::StatusOr<size_t> ParseName(std::string_view key, std::span<const std::string_view> names,
                                 const std::string& text);

}  // namespace mnemo::memory_device
