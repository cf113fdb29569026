// Limits of this worker that a request is checked against.
#pragma once

#include "server/memory/shape.h"

namespace mnemo::worker {

struct RequestLimits {
  int vocabulary = 0;      // token ids
  int context_tokens = 0;  // longest sequence
  int kv_pages = 0;        // the worker's own pool
  // Pages for resident sequences (ResidencyOf), besides kv_pages. 0: K and V of all sequences stay in the
  // pool.
  int extra_pages = 0;
  bool any_placement_in_service = false;  // where a request goes that names no placement
  memory::MemoryShape memory;             // no layers: dense attention only
};

}  // namespace mnemo::worker
