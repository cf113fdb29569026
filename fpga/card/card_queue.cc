#include "fpga/card/card_queue.h"

#include <atomic>
#include <cstring>

#include "proto/layout/card.h"

namespace mnemo::card {

using layout::Completion;
using layout::RingHeader;

RingHeader NewRing(bool completions, uint16_t epoch, uint32_t slots, uint32_t index) {
  RingHeader header{};
  header.magic = MNEMO_RING_MAGIC;
  header.abi_major = layout::kAbiMajor;
  header.abi_minor = layout::kAbiMinor;
  header.kind = completions ? layout::kRingCompletions : layout::kRingQuery;
  header.epoch = epoch;
  header.slots = slots;
  header.slot_bytes = layout::kUnitBytes;
  header.slots_offset_bytes = sizeof(RingHeader);
  header.head = header.tail = index;
  return header;
}

RingHeader* CardQueue::HeaderAt(uint64_t offset) const {
  return reinterpret_cast<RingHeader*>(port_->host_memory().data() + offset);
}

uint8_t* CardQueue::SlotOf(uint64_t offset, uint32_t index) const {
  return port_->host_memory().data() + offset + sizeof(RingHeader) +
         uint64_t{index & (parts_.slots - 1)} * layout::kUnitBytes;
}

void CardQueue::Open(CardPort* port, const HostParts& parts, uint16_t epoch, uint32_t index) {
  port_ = port;
  parts_ = parts;
  epoch_ = epoch;
  head_ = rung_ = taken_ = index;
  under_way_ = 0;
  for (const bool completions : {false, true}) {
    *HeaderAt(completions ? parts.completions : parts.ring) = NewRing(completions, epoch, parts.slots, index);
  }
}

void CardQueue::Push(layout::Descriptor descriptor) {
  MNEMO_CHECK(HasRoom());
  descriptor.epoch = epoch_;
  descriptor.seq = head_;
  std::memcpy(SlotOf(parts_.ring, head_), &descriptor, sizeof(descriptor));
  ++head_;
  ++under_way_;
}

absl::Status CardQueue::Ring() {
  if (rung_ == head_) return absl::OkStatus();
  std::atomic_ref(HeaderAt(parts_.ring)->head).store(head_, std::memory_order_release);
  rung_ = head_;
  return port_->WriteRegister(uint32_t{layout::kCardRegQueues} + layout::kCardQueueHead, head_);
}

absl::StatusOr<std::optional<Completion>> CardQueue::Take() {
  RingHeader* const header = HeaderAt(parts_.completions);
  const uint32_t count = std::atomic_ref(header->head).load(std::memory_order_acquire) - taken_;
  if (count == 0) return std::nullopt;
  if (count > under_way_) {
    return Internal("the card has {} completions for {} descriptors", count, under_way_);
  }
  Completion completion;
  std::memcpy(&completion, SlotOf(parts_.completions, taken_), sizeof(completion));
  if (completion.seq != head_ - under_way_) {
    return Internal("completion of the card: seq {}, expected {}", completion.seq, head_ - under_way_);
  }
  ++taken_;
  --under_way_;
  std::atomic_ref(header->tail).store(taken_, std::memory_order_release);
  return completion;
}

}  // namespace mnemo::card
