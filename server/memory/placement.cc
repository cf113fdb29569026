#include "server/memory/placement.h"

namespace mnemo::memory {

PlacementChoice ChoosePlacement(AttentionSettings::Placement asked, const PlacementRules& rules, bool begun) {
  switch (asked) {
    case AttentionSettings::Placement::kInline:
      return {};
    case AttentionSettings::Placement::kMemoryService:
      return {.in_service = true, .insists = !begun};
    case AttentionSettings::Placement::kAny:
      break;
  }
  return {.in_service = rules.any_in_service && rules.has_service};
}

std::string_view FallbackReason(const absl::Status& refusal) {
  if (absl::IsResourceExhausted(refusal)) return "service_full";
  if (absl::IsFailedPrecondition(refusal)) return "service_incapable";
  return "service_absent";
}

}  // namespace mnemo::memory
