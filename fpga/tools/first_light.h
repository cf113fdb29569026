// First light of a card: what its registers say, and whether it gives the bytes of the reference.
#pragma once

#include <string>

#include "devices/base/status.h"
#include "devices/memory/memory_device.h"
#include "fpga/card/card_port.h"

namespace mnemo::first_light {

// Lines with the card's identity and shape, as far as registers answer.
std::string DescribeCard(card::CardPort* port);

// Fills one index of each format of codes that the device has, and asks for its best tokens; lines with what
// was compared. INTERNAL: the first result that is not the reference's, or the device's refusal.
// DEADLINE_EXCEEDED: the device has answered nothing for ten seconds.
absl::Status CompareWithReference(memory_device::MemoryDevice* device, std::string* lines);

}  // namespace mnemo::first_light
