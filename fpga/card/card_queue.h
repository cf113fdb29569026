#pragma once

// Queue 0 of a card from the host's side: the rings of descriptors and completions (proto/layout/ring.h).

#include <cstdint>
#include <optional>
#include <span>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/card/host_parts.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/ring.h"

namespace mnemo::card {

// An empty ring from `index` on.
layout::RingHeader NewRing(bool completions, uint16_t epoch, uint32_t slots, uint32_t index);

class CardQueue {
 public:
  // Makes both rings, empty from `index` on. Before the card is told of them.
  void Open(CardPort* port, const HostParts& parts, uint16_t epoch, uint32_t index);

  // Whether the ring has room, and the completion too.
  bool HasRoom() const { return under_way_ < parts_.slots; }
  // Descriptors whose completions have not been taken.
  uint32_t under_way() const { return under_way_; }
  // Completions that were taken, free-running as the head of their ring.
  uint32_t taken() const { return taken_; }
  // Fills the next slot, with its seq and epoch. There is room.
  void Push(layout::Descriptor descriptor);
  // Shows the card what was pushed since.
  absl::Status Ring();
  // The next completion. INTERNAL when the ring or its seq says what cannot be.
  absl::StatusOr<std::optional<layout::Completion>> Take();

 private:
  layout::RingHeader* HeaderAt(uint64_t offset) const;
  uint8_t* SlotOf(uint64_t offset, uint32_t index) const;

  CardPort* port_ = nullptr;
  HostParts parts_;
  uint16_t epoch_ = 0;
  uint32_t head_ = 0;   // of the descriptors
  uint32_t rung_ = 0;   // the head that the card knows
  uint32_t taken_ = 0;  // of the completions
  uint32_t under_way_ = 0;
};

}  // namespace mnemo::card
