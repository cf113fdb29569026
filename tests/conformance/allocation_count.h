#pragma once

#include <cstdint>

namespace mnemo::conformance {

// Calls of operator new in this program so far, on any thread.
uint64_t AllocationCount();

}  // namespace mnemo::conformance
