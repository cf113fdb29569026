#pragma once

// layout::MakeRecord and layout::MakeQueryBlock, to the same bits, on this machine's best kernels. From any
// thread; nothing is allocated.

#include <stdint.h>

#include <span>

#include "proto/layout/quantise.h"

namespace mnemo::memory_device {

// Arguments and results as layout::MakeRecord has them.
void MakeRecordFast(const layout::PageKeys& keys, uint32_t dim, uint32_t record_format,
                    std::span<uint8_t> record);

// Arguments and results as layout::MakeQueryBlock has them.
void MakeQueryBlockFast(std::span<const float> queries, uint32_t group, uint32_t dim, uint32_t record_format,
                        float softmax_scale, std::span<const int16_t> weights, std::span<uint8_t> block);

}  // namespace mnemo::memory_device
