// Decides where prepare, relevancy and retrieval of a request run: pure functions of the request's placement
// and of the services available.
#pragma once

#include <string_view>

#include "devices/base/status.h"
#include "server/memory/attention_settings.h"

namespace mnemo::memory {

// Placements that a worker offers.
struct PlacementRules {
  bool any_in_service = false;  // requests that leave the choice to the worker use the service
  bool has_service = false;     // a memory service is configured, attached at present or not
};

struct PlacementChoice {
  bool in_service = false;  // the memory service is asked first; false: the worker keeps the index
  bool insists = false;     // a request that the service cannot take is refused; false: it runs in the worker
};

// A request that has `begun` is never refused for its placement.
PlacementChoice ChoosePlacement(AttentionSettings::Placement asked, const PlacementRules& rules, bool begun);

// Reason, as in the counters of fallbacks, why a sequence runs in the worker instead of in the service.
// `refusal` is the error of the attempt to place it in the service.
std::string_view FallbackReason(const absl::Status& refusal);

}  // namespace mnemo::memory
