// Range checks of fields of public requests, in the wording of CheckFieldRange (devices/base/range.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "devices/base/status.h"

namespace mnemo::frontend {

// Each returns INVALID_ARGUMENT that names the field, its value and the range.

// (low_exclusive, high]; NaN is outside.
absl::Status CheckFloatAbove(std::string_view field, float value, float low_exclusive, float high);
// Token ids: [0, count). The message names the field with its index.
absl::Status CheckId(std::string_view field, int64_t index, int32_t id, int count);

}  // namespace mnemo::frontend
