#pragma once

// Counters of a card as metrics of the memory service. Both lists have the order of proto/layout/card.h.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/memory/memory_device.h"
#include "proto/layout/card.h"

namespace mnemo::card {

using CardCounts = std::array<uint64_t, layout::kCardCounters>;      // by layout::CardCounter
using LaneCounts = std::array<uint64_t, layout::kCardLaneCounters>;  // by layout::CardLaneCounter

// lanes: by channel.
std::vector<memory_device::DeviceCounter> DeviceCounters(const CardCounts& counts,
                                                         std::span<const LaneCounts> lanes);

}  // namespace mnemo::card
