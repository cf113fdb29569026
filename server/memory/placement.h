// Where prepare, relevancy and retrieval of a request run: pure functions of what is asked and what there is.
#pragma once

#include <string_view>

#include "devices/base/status.h"
#include "server/memory/attention_settings.h"

namespace mnemo::memory {

// The places that a worker has for requests.
struct PlacementRules {
  bool any_in_service = false;  // where requests go that leave the choice to the worker
  bool has_service = false;     // the worker was given a memory service, whether that is there now or not
};

struct PlacementChoice {
  bool in_service = false;  // the memory service is asked; false: the worker keeps the index
  bool insists = false;     // what the service cannot take is refused; false: it runs in the worker
};

// A request that has `begun` is never refused for its placement.
PlacementChoice ChoosePlacement(AttentionSettings::Placement asked, const PlacementRules& rules, bool begun);

// Why a sequence runs in the worker instead of in the service, as fallbacks are counted, from the error that
// the service's side gave.
std::string_view FallbackReason(const absl::Status& refusal);

}  // namespace mnemo::memory
