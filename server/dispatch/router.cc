#include "server/dispatch/router.h"

#include <algorithm>
#include <cstddef>
#include <tuple>

namespace mnemo::dispatch {

bool IsEligible(const RouteCandidate& candidate, const RouteQuery& query) {
  return candidate.ready && (query.numerics_id.empty() || query.numerics_id == candidate.numerics_id) &&
         query.sequence_tokens <= candidate.context_tokens;
}

std::optional<size_t> Route(std::span<const RouteCandidate> candidates, const RouteQuery& query) {
  std::optional<size_t> best;
  std::tuple<int64_t, int> best_cost;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const RouteCandidate& candidate = candidates[i];
    if (!IsEligible(candidate, query) || candidate.outstanding_requests >= candidate.max_requests) continue;
    const int64_t cached = candidate.holds_session ? query.prompt_tokens
                                                   : std::min(candidate.prefix_tokens, query.prompt_tokens);
    const std::tuple<int64_t, int> cost = {candidate.outstanding_tokens + query.prompt_tokens - cached,
                                           candidate.outstanding_requests};
    if (!best || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace mnemo::dispatch
