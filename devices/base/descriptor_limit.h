// How many descriptors a process may have.
#pragma once

#include <cstdint>

namespace mnemo {

// Raises the soft limit (RLIMIT_NOFILE) to the hard one; children inherit it. Nothing here uses select, for
// whose sake soft limits are low.
void RaiseDescriptorLimit();
// The soft limit.
int64_t DescriptorLimit();

}  // namespace mnemo
