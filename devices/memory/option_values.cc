#include "devices/memory/option_values.h"

#include <absl/strings/numbers.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>

namespace mnemo::memory_device {

absl::StatusOr<uint64_t> ParseNumber(const NumberOption& option, const std::string& text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < option.least || value > option.most ||
      (option.power_of_two && !std::has_single_bit(value))) {
    return InvalidArgument("device option \"{}\": \"{}\"; allowed: {} from {} to {}", option.key, text,
                           option.power_of_two ? "powers of two" : "whole numbers", option.least,
                           option.most);
  }
  return value;
}

absl::StatusOr<size_t> ParseName(std::string_view key, std::span<const std::string_view> names,
                                 const std::string& text) {
  const auto found = std::find(names.begin(), names.end(), text);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  return InvalidArgument("device option \"{}\": \"{}\"; allowed: {}", key, text, fmt::join(names, ", "));
}

}  // namespace mnemo::memory_device
