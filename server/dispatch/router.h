// Which worker takes a request: a pure function of a snapshot.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace mnemo::dispatch {

// One worker as the router sees it, for one request.
struct RouteCandidate {
  bool ready = false;              // connected, and neither draining nor refusing at the moment
  std::string_view numerics_id;    // of its current connection
  int context_tokens = 0;          // longest sequence it takes
  int outstanding_requests = 0;    // sent and not ended
  int max_requests = 0;            // no more than so many are sent to it
  int64_t outstanding_tokens = 0;  // prompt tokens not prefilled and output tokens not made, of those
  int64_t prefix_tokens = 0;       // leading tokens of this request's prompt that it has likely cached
  bool holds_session = false;      // the request's session was last there
};

struct RouteQuery {
  int64_t prompt_tokens = 0;
  int64_t sequence_tokens = 0;   // prompt and output at its longest
  std::string_view numerics_id;  // a replay goes on only under this one; empty = any
};

// True when the worker could take the request if it had room.
bool IsEligible(const RouteCandidate& candidate, const RouteQuery& query);

// Index of the worker to send to; nothing when none that is eligible has room. The cost of a worker is its
// outstanding tokens plus the part of the prompt that it would have to prefill. A session held counts as a
// prompt cached in full. The cheapest wins, then the one with fewer requests, then the lower index.
std::optional<size_t> Route(std::span<const RouteCandidate> candidates, const RouteQuery& query);

}  // namespace mnemo::dispatch
