#include "fpga/card/direct_queues.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

#include "fpga/card/card_queue.h"
#include "fpga/card/card_registers.h"
#include "proto/layout/ring.h"

namespace mnemo::card {

using layout::RingHeader;

namespace {

constexpr uint32_t kLongestRing = 1 << 16;
constexpr uint64_t kLargestRegion = uint64_t{UINT32_MAX} * layout::kUnitBytes;

uint64_t RingBytes(uint32_t slots) { return sizeof(RingHeader) + uint64_t{slots} * layout::kUnitBytes; }

bool Within(const CardSpace& space, const CardSpace& of) {
  return space.address >= of.address && space.bytes <= of.bytes &&
         space.address - of.address <= of.bytes - space.bytes;
}

bool Overlap(const CardSpace& a, const CardSpace& b) {
  return a.address < b.address + b.bytes && b.address < a.address + a.bytes;
}

// Host memory of the port, or card memory.
absl::Status Store(CardPort* port, uint64_t address, std::span<const uint8_t> bytes) {
  const std::span<uint8_t> host = port->host_memory();
  if (!Within({address, bytes.size()}, {port->host_address(), host.size()})) {
    return port->Write(address, bytes);
  }
  std::memcpy(host.data() + (address - port->host_address()), bytes.data(), bytes.size());
  return absl::OkStatus();
}

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof(value)};
}

absl::Status StoreRings(CardPort* port, const DirectQueue& queue) {
  for (const bool completions : {false, true}) {
    const RingHeader header = NewRing(completions, queue.epoch, queue.slots, queue.index);
    MNEMO_RETURN_IF_ERROR(Store(port, completions ? queue.completions : queue.ring, BytesOf(header)));
  }
  const std::vector<layout::Completion> empty = NewCompletions(queue.slots, queue.index);
  return Store(port, queue.completions + sizeof(RingHeader),
               {reinterpret_cast<const uint8_t*>(empty.data()), empty.size() * sizeof(layout::Completion)});
}

absl::Status CloseRings(CardPort* port, const DirectQueue& queue) {
  constexpr uint32_t kClosed = 1;
  MNEMO_RETURN_IF_ERROR(Store(port, queue.ring + offsetof(RingHeader, closed), BytesOf(kClosed)));
  return Store(port, queue.completions + offsetof(RingHeader, closed), BytesOf(kClosed));
}

}  // namespace

void DirectQueues::Start(CardPort& port, const HostParts& parts) {
  parts_ = parts;
  queues_ = {};
  spaces_.clear();
  if (parts.direct_bytes <= kTableBytes) return;
  spaces_.push_back({port.host_address() + parts.direct + kTableBytes, parts.direct_bytes - kTableBytes});
  if (const CardSpace card = port.direct_memory(); card.bytes != 0) spaces_.push_back(card);
}

void DirectQueues::Drop(CardPort* port, CardMemory* memory) {
  for (uint32_t number = 1; number < queues_.size(); ++number) {
    const std::optional<DirectQueue> queue = std::exchange(queues_[number], std::nullopt);
    if (!queue.has_value()) continue;
    memory->CloseDirectTable(TableOf(number));
    // Behind a port that fails nobody looks at the rings.
    if (port != nullptr) (void)CloseRings(port, *queue);
  }
}

std::vector<DirectQueues::Area> DirectQueues::AreasOf(const DirectQueue& queue) {
  std::vector<Area> areas = {{"ring", {queue.ring, RingBytes(queue.slots)}},
                             {"completions", {queue.completions, RingBytes(queue.slots)}}};
  for (size_t n = 0; n < queue.regions.size(); ++n) {
    areas.push_back({n == 0 ? "regions[0]" : "regions[1]", queue.regions[n]});
  }
  return areas;
}

absl::Status DirectQueues::CheckAreas(uint32_t number, const DirectQueue& queue) const {
  const std::vector<Area> areas = AreasOf(queue);
  for (size_t n = 0; n < areas.size(); ++n) {
    const char* const name = areas[n].name;
    const CardSpace& space = areas[n].space;
    if (space.address % layout::kUnitBytes != 0 || space.bytes % layout::kUnitBytes != 0 ||
        space.bytes == 0 || space.bytes > kLargestRegion) {
      return InvalidArgument(
          "queue {}: {}: {} bytes at {:#x}; allowed: multiples of {} bytes, from {} to {} of them, at "
          "multiples of {}",
          number, name, space.bytes, space.address, uint32_t{layout::kUnitBytes},
          uint32_t{layout::kUnitBytes}, kLargestRegion, uint32_t{layout::kUnitBytes});
    }
    if (std::none_of(spaces_.begin(), spaces_.end(),
                     [&space](const CardSpace& of) { return Within(space, of); })) {
      std::string all;
      for (const CardSpace& of : spaces_) {
        all += fmt::format("{}{} bytes at {:#x}", all.empty() ? "" : ", ", of.bytes, of.address);
      }
      return InvalidArgument("queue {}: {}: {} bytes at {:#x}; allowed: within {}", number, name, space.bytes,
                             space.address, all);
    }
    for (size_t m = 0; m < n; ++m) {
      if (Overlap(space, areas[m].space)) {
        return InvalidArgument("queue {}: {}: {} bytes at {:#x} overlap its {}", number, name, space.bytes,
                               space.address, areas[m].name);
      }
    }
    for (uint32_t other = 1; other < queues_.size(); ++other) {
      if (!queues_[other].has_value()) continue;
      for (const Area& area : AreasOf(*queues_[other])) {
        if (!Overlap(space, area.space)) continue;
        return InvalidArgument("queue {}: {}: {} bytes at {:#x} overlap {} of queue {}", number, name,
                               space.bytes, space.address, area.name, other);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DirectQueues::Check(uint32_t number, const DirectQueue& queue) const {
  if (number < 1 || number >= layout::kCardQueues) {
    return InvalidArgument("queue {}: allowed: 1 to {}", number, layout::kCardQueues - 1);
  }
  if (attached(number)) return FailedPrecondition("queue {}: attached already", number);
  if (spaces_.empty()) {
    return FailedPrecondition(
        "queue {}: direct_bytes of the driver are {}; more than {} are needed for direct queues", number,
        parts_.direct_bytes, kTableBytes);
  }
  if (!std::has_single_bit(queue.slots) || queue.slots > kLongestRing) {
    return InvalidArgument("queue {}: slots: {}; allowed: powers of two up to {}", number, queue.slots,
                           kLongestRing);
  }
  if (queue.regions.empty() || queue.regions.size() > layout::kCardMaxRegions) {
    return InvalidArgument("queue {}: regions: {}; allowed: 1 to {}", number, queue.regions.size(),
                           uint32_t{layout::kCardMaxRegions});
  }
  if (queue.indexes.empty() || queue.indexes.size() > kIndexes) {
    return InvalidArgument("queue {}: indexes: {}; allowed: 1 to {}", number, queue.indexes.size(),
                           uint32_t{kIndexes});
  }
  return CheckAreas(number, queue);
}

absl::StatusOr<layout::AttachHello> DirectQueues::Attach(CardPort* port, CardMemory* memory, uint32_t number,
                                                         const DirectQueue& queue,
                                                         layout::AttachHello granted) {
  MNEMO_RETURN_IF_ERROR(Check(number, queue));
  for (size_t n = 0; n < queue.indexes.size(); ++n) {
    const CardIndexState* const index = memory->Find(queue.indexes[n]);
    if (index == nullptr) {
      return NotFound("queue {}: indexes[{}]: owner {} has no index {}", number, n, queue.indexes[n].owner,
                      queue.indexes[n].index_id);
    }
    if (!index->number.has_value()) {
      return ResourceExhausted("queue {}: indexes[{}]: the card's memory has no room for its page list",
                               number, n);
    }
  }
  MNEMO_RETURN_IF_ERROR(StoreRings(port, queue));
  granted.epoch = queue.epoch;
  granted.regions = static_cast<uint16_t>(queue.regions.size());
  granted.query_slots = queue.slots;
  granted.max_indexes = static_cast<uint32_t>(queue.indexes.size());
  const QueueSetup setup{.ring = queue.ring,
                         .completions = queue.completions,
                         .slots = queue.slots,
                         .poll = queue.poll,
                         .regions = queue.regions,
                         .table = port->host_address() + TableOf(number),
                         .indexes = granted.max_indexes,
                         .granted = granted,
                         .index = queue.index};
  memory->OpenDirectTable(TableOf(number), queue.indexes);
  MNEMO_RETURN_IF_ERROR(ProgramQueue(port, number, setup));
  MNEMO_ASSIGN_OR_RETURN(const uint32_t enable,
                         port->ReadRegister(QueueRegister(number, layout::kCardQueueEnable)));
  if (enable == 0) {
    memory->CloseDirectTable(TableOf(number));
    return FailedPrecondition("queue {}: the card has no such queue", number);
  }
  queues_[number] = queue;
  return granted;
}

absl::Status DirectQueues::Detach(CardPort* port, CardMemory* memory, uint32_t number,
                                  std::chrono::milliseconds allowed) {
  if (!attached(number)) return FailedPrecondition("queue {}: not attached", number);
  MNEMO_RETURN_IF_ERROR(port->WriteRegister(QueueRegister(number, layout::kCardQueueEnable), 0));
  MNEMO_RETURN_IF_ERROR(SettleCard(port, allowed));
  memory->CloseDirectTable(TableOf(number));
  const DirectQueue queue = *std::exchange(queues_[number], std::nullopt);
  return CloseRings(port, queue);
}

}  // namespace mnemo::card
