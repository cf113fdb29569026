#include "fpga/card/card_queue.h"

#include <atomic>
#include <cstddef>
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

std::vector<Completion> NewCompletions(uint32_t slots, uint32_t index) {
  std::vector<Completion> completions(slots);
  for (uint32_t n = 0; n < slots; ++n) completions[(index + n) & (slots - 1)].seq = index + n - slots;
  return completions;
}

std::optional<Completion> CompletionIn(uint8_t* slot, uint32_t seq) {
  constexpr size_t kLastAt = offsetof(Completion, status);
  static_assert(kLastAt % sizeof(uint64_t) == 0 && kLastAt + sizeof(uint64_t) == sizeof(Completion));
  const uint64_t last =
      std::atomic_ref(*reinterpret_cast<uint64_t*>(slot + kLastAt)).load(std::memory_order_acquire);
  Completion completion;
  std::memcpy(reinterpret_cast<uint8_t*>(&completion) + kLastAt, &last, sizeof(last));
  if (completion.seq != seq) return std::nullopt;
  std::memcpy(&completion, slot, kLastAt);
  return completion;
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
  ahead_ = false;
  for (const bool completions : {false, true}) {
    *HeaderAt(completions ? parts.completions : parts.ring) = NewRing(completions, epoch, parts.slots, index);
  }
  const std::vector<Completion> empty = NewCompletions(parts.slots, index);
  std::memcpy(SlotOf(parts.completions, 0), empty.data(), empty.size() * sizeof(Completion));
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

absl::Status CardQueue::CheckCount(uint32_t count, uint32_t least) const {
  if (count - least <= under_way_ - least) return absl::OkStatus();
  return Internal("the card has {} completions for {} descriptors", static_cast<int32_t>(count), under_way_);
}

absl::StatusOr<std::optional<Completion>> CardQueue::Take() {
  RingHeader* const header = HeaderAt(parts_.completions);
  uint8_t* const slot = SlotOf(parts_.completions, taken_);
  const uint32_t seq = head_ - under_way_;
  const auto count = [&] { return std::atomic_ref(header->head).load(std::memory_order_acquire) - taken_; };
  // The card writes a completion once the head counts the ones before it.
  const uint32_t known = count();
  std::optional<Completion> completion = under_way_ == 0 ? std::nullopt : CompletionIn(slot, seq);
  const uint32_t after = completion.has_value() ? count() : known;
  MNEMO_RETURN_IF_ERROR(CheckCount(after, !completion.has_value() && ahead_ ? UINT32_MAX : 0));
  if (!completion.has_value()) {
    if (static_cast<int32_t>(known) <= 0) return std::nullopt;
    uint32_t other = 0;
    std::memcpy(&other, slot + offsetof(Completion, seq), sizeof(other));
    return Internal("completion of the card: seq {}, expected {}", other, seq);
  }
  ahead_ = after == 0;
  ++taken_;
  --under_way_;
  std::atomic_ref(header->tail).store(taken_, std::memory_order_release);
  return completion;
}

}  // namespace mnemo::card
