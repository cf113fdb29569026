#pragma once

#include <cstdint>
#include <span>

#include "proto/layout/descriptor.h"

namespace mnemo::memory_device::testing {

// Whether the result blocks of an operation over an index of this dim are the expected ones, both of
// heads x queries blocks. Bytes behind the last id and the last rank are nobody's.
bool SameResults(const layout::Descriptor& d, uint32_t dim, std::span<const uint8_t> results,
                 std::span<const uint8_t> expected);

}  // namespace mnemo::memory_device::testing
