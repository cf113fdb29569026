#pragma once

// The parts of a port's host memory: rings, index table, tokens, payloads and results, and
// what direct queues have (direct_queues.h).

#include <cstdint>

#include "devices/base/status.h"

namespace mnemo::card {

// Offsets and sizes in bytes, multiples of 64.
struct HostParts {
  uint32_t slots = 0;    // of each ring
  uint32_t indexes = 0;  // of the table
  uint64_t ring = 0;     // RingHeader, then descriptors
  uint64_t completions = 0;
  uint64_t table = 0;
  uint64_t tokens = 0;
  uint64_t tokens_bytes = 0;
  uint64_t payloads = 0;
  uint64_t payload_bytes = 0;
  uint64_t results = 0;
  uint64_t result_bytes = 0;
  uint64_t direct = 0;  // for direct queues
  uint64_t direct_bytes = 0;
};

struct HostNeeds {
  uint32_t operations = 0;     // under way at a time
  uint64_t payload_block = 0;  // largest of one position and head
  uint64_t result_block = 0;
  uint64_t direct_bytes = 0;  // for direct queues
};

// Shares `bytes` out. INVALID_ARGUMENT names the least that serves.
absl::StatusOr<HostParts> PartHostMemory(uint64_t bytes, const HostNeeds& needs);

}  // namespace mnemo::card
