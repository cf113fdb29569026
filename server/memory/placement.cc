#include "server/memory/placement.h"

#include "server/memory/step_stats.h"

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
  if (absl::IsResourceExhausted(refusal)) return kServiceFull;
  if (absl::IsFailedPrecondition(refusal)) return kServiceIncapable;
  return kServiceAbsent;
}

}  // namespace mnemo::memory
