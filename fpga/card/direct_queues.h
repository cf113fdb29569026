#pragma once

// Queues 1 to 7 of a card, for peers that write descriptors by themselves, as a GPU does, and read results
// without the driver. Rings, queries and results of a peer lie where the command processor reaches them: in
// the driver's host memory or in card memory (CardPort::direct_memory). The index table stays the driver's:
// it names what the peer may score, and follows appends and the end of an index.
//
// A completion is there once the last 8 bytes of its slot, read as one, have the descriptor's seq: then its
// other bytes and its results are there, and its slot of the ring of descriptors is free. The ring's head
// counts it later, by one way to the card and back; a peer may wait for either. AttachQueue writes all slots,
// so that none has a seq that is to come. That holds for a peer whose descriptors have the numbers that the
// card expects; others are refused, and found by the head alone.
//
// The card reads and writes nothing of a queue outside of its rings, regions and table, whatever the peer
// writes there. Who frees an index detaches the queues that name it before: descriptors that are under way
// may still read its memory.

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/base/status.h"
#include "devices/memory/record_memory.h"
#include "fpga/card/card_memory.h"
#include "fpga/card/card_port.h"
#include "fpga/card/host_parts.h"
#include "proto/layout/attach.h"
#include "proto/layout/card.h"

namespace mnemo::card {

// Addresses are the card's, multiples of 64. Areas overlap neither each other nor those of another queue.
struct DirectQueue {
  uint32_t slots = 0;  // of each ring, a power of two
  // Each has a RingHeader and `slots` slots of 64 bytes.
  uint64_t ring = 0;
  uint64_t completions = 0;
  bool poll = false;               // the head is read from the ring's header; false: from the doorbell
  std::vector<CardSpace> regions;  // 1 or 2
  std::vector<memory_device::IndexKey> indexes;  // index_id n of a descriptor is indexes[n]
  uint16_t epoch = 0;
  uint32_t index = 0;  // of the rings; also the first seq
};

class DirectQueues {
 public:
  static constexpr uint32_t kIndexes = 64;  // of a queue at most
  // Host memory that the tables take.
  static constexpr uint64_t kTableBytes =
      uint64_t{layout::kCardQueues - 1} * kIndexes * sizeof(layout::CardIndex);

  // Begins with no queue attached.
  void Start(CardPort& port, const HostParts& parts);
  // All queues are gone, and their rings say so; `port` is nullptr when the memory is gone as well.
  void Drop(CardPort* port, CardMemory* memory);

  const std::vector<CardSpace>& spaces() const { return spaces_; }
  bool attached(uint32_t number) const { return number < queues_.size() && queues_[number].has_value(); }

  absl::StatusOr<layout::AttachHello> Attach(CardPort* port, CardMemory* memory, uint32_t number,
                                             const DirectQueue& queue, layout::AttachHello granted);
  absl::Status Detach(CardPort* port, CardMemory* memory, uint32_t number, std::chrono::milliseconds allowed);

 private:
  struct Area {
    const char* name;
    CardSpace space;
  };
  static std::vector<Area> AreasOf(const DirectQueue& queue);
  absl::Status Check(uint32_t number, const DirectQueue& queue) const;
  absl::Status CheckAreas(uint32_t number, const DirectQueue& queue) const;
  uint64_t TableOf(uint32_t number) const {
    return parts_.direct + uint64_t{number - 1} * kIndexes * sizeof(layout::CardIndex);
  }

  HostParts parts_;
  std::vector<CardSpace> spaces_;
  std::array<std::optional<DirectQueue>, layout::kCardQueues> queues_;
};

}  // namespace mnemo::card
