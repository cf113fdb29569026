// Range checks of fields of public requests, with one wording for all of them.
#pragma once

#include <cstdint>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::frontend {

// Each returns INVALID_ARGUMENT that names the field, its value and the range. Bounds are inclusive where the
// name does not say otherwise.
absl::Status CheckInt(std::string_view field, int64_t value, int64_t low, int64_t high);
// NaN is out of every range.
absl::Status CheckFloat(std::string_view field, float value, float low, float high);
absl::Status CheckFloatAbove(std::string_view field, float value, float low_exclusive, float high);
// Token ids: [0, count). The message names the field with its index.
absl::Status CheckId(std::string_view field, int64_t index, int32_t id, int count);

}  // namespace mnemo::frontend
