// Shortage of memory fails the call that asks for it, not the process.
#pragma once

#include <new>

#include "devices/base/status.h"

namespace mnemo::frontend {

// Result of `work` (absl::Status or absl::StatusOr), or RESOURCE_EXHAUSTED when it runs out of memory.
template <typename Work>
auto FailWithoutMemory(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory: the call needs more than the server has now; try again later");
  }
}

}  // namespace mnemo::frontend
