// The limit on open file descriptors of this process.
#pragma once

#include <cstdint>

namespace mnemo {

// Raises the soft limit (RLIMIT_NOFILE) to the hard limit; child processes inherit it. Soft limits are low
// for the sake of select(), which this code base does not use.
void RaiseDescriptorLimit();
// Returns the soft limit.
int64_t DescriptorLimit();

}  // namespace mnemo
