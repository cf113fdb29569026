#pragma once

// Queue 0 of a card from the host's side: the rings of descriptors and completions (proto/layout/ring.h).

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/card/host_parts.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/ring.h"

namespace mnemo::card {

// An empty ring from `index` on.
layout::RingHeader NewRing(bool completions, uint16_t epoch, uint32_t slots, uint32_t index);

// Slots of a ring of completions, empty from `index` on: each has the seq of a lap before, whatever the
// memory had. So none is taken for a completion that is to come.
std::vector<layout::Completion> NewCompletions(uint32_t slots, uint32_t index);

// The completion in a slot once its last 8 bytes, which the card writes last, have `seq`; none: not yet. The
// ring's head counts it later, by one way to the card and back.
std::optional<layout::Completion> CompletionIn(uint8_t* slot, uint32_t seq);

class CardQueue {
 public:
  // Makes both rings, empty from `index` on. Before the card is told of them.
  void Open(CardPort* port, const HostParts& parts, uint16_t epoch, uint32_t index);

  // Whether the ring has room, and the completion too.
  bool HasRoom() const { return under_way_ < parts_.slots; }
  // Descriptors whose completions have not been taken.
  uint32_t under_way() const { return under_way_; }
  // Completions that were taken, free-running as the head of their ring. It may be one ahead of that head.
  uint32_t taken() const { return taken_; }
  // Fills the next slot, with its seq and epoch. There is room.
  void Push(layout::Descriptor descriptor);
  // Shows the card what was pushed since.
  absl::Status Ring();
  // The next completion, whether or not the ring's head counts it yet. INTERNAL when the ring or its seq says
  // what cannot be.
  absl::StatusOr<std::optional<layout::Completion>> Take();

 private:
  // The head of the completions' ring counts so many beyond `taken_`; it can lack the last that was taken.
  absl::Status CheckCount(uint32_t count, uint32_t least) const;
  layout::RingHeader* HeaderAt(uint64_t offset) const;
  uint8_t* SlotOf(uint64_t offset, uint32_t index) const;

  CardPort* port_ = nullptr;
  HostParts parts_;
  uint16_t epoch_ = 0;
  uint32_t head_ = 0;   // of the descriptors
  uint32_t rung_ = 0;   // the head that the card knows
  uint32_t taken_ = 0;  // of the completions
  uint32_t under_way_ = 0;
  bool ahead_ = false;  // the last completion was taken before the head counted it
};

}  // namespace mnemo::card
