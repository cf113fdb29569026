// Validation of a request before it becomes live.
#pragma once

#include "devices/base/status.h"
#include "server/worker/engine.h"
#include "server/worker/request_limits.h"

namespace mnemo::worker {

// Lowers max_tokens of a request with `lower_to_pool` to the room of an empty pool, at least to 1. Generated
// tokens of a replay end there too, since another worker's pool may be larger. A request that does not fit
// even so is left for CheckRequest to refuse.
void LowerToPool(const RequestLimits& limits, EngineRequest* request);

// INVALID_ARGUMENT names the field and its bound; UNIMPLEMENTED: the worker has no such attention method.
absl::Status CheckRequest(const EngineRequest& request, const RequestLimits& limits);

}  // namespace mnemo::worker
