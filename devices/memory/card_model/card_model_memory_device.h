#pragma once

// The card in software as a memory device: the driver of fpga/card over the model of fpga/card/model. Its
// times are estimates in cycles of a card's clock.

#include "devices/memory/memory_device_registry.h"

namespace mnemo::memory_device::card_model {

// Options, KEY=VALUE with whole numbers:
//   channels    of card memory, 1 to 32, a power of two (32)
//   hbm_bytes   card memory in all, up to 16 GiB; only what is written takes memory of the host (16 GiB)
//   group       queries of a pass, 1 to 16, a power of two (4)
//   scorers     scores a cycle, up to 64, a power of two, at least `group` (16)
//   bank_words  words of a score bank, a power of two (4,096)
//   clock_mhz   clock for the times in completions, 50 to 1,000 (250)
//   max_group   queries of a group that are offered at most (64)
//   max_k       entries of a selection that are offered at most (16,384). With bank_words / 2 or
//               fewer indexes may have more pages than that in a channel, then without cascades
MemoryDeviceKind Kind();

}  // namespace mnemo::memory_device::card_model
