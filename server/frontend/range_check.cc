#include "server/frontend/range_check.h"

namespace mnemo::frontend {

absl::Status CheckFloatAbove(std::string_view field, float value, float low_exclusive, float high) {
  // The comparisons are false for NaN.
  if (value > low_exclusive && value <= high) return absl::OkStatus();
  return InvalidArgument("{}: {} is out of range; allowed: ({}, {}]", field, value, low_exclusive, high);
}

absl::Status CheckId(std::string_view field, int64_t index, int32_t id, int count) {
  if (id >= 0 && id < count) return absl::OkStatus();
  return InvalidArgument("{}[{}]: id {} is out of range; allowed: [0, {})", field, index, id, count);
}

}  // namespace mnemo::frontend
