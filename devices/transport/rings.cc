#include "devices/transport/rings.h"

#include <algorithm>
#include <cstring>

namespace mnemo::transport {
namespace {

using layout::RingHeader;

layout::RingHeader Header(uint32_t slots, layout::RingKind kind, uint16_t epoch) {
  RingHeader header{};
  header.magic = MNEMO_RING_MAGIC;
  header.abi_major = layout::kAbiMajor;
  header.abi_minor = layout::kAbiMinor;
  header.kind = static_cast<uint16_t>(kind);
  header.epoch = epoch;
  header.slots = slots;
  header.slot_bytes = kSlotBytes;
  header.slots_offset_bytes = sizeof(RingHeader);
  return header;
}

}  // namespace

void MakeRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
              uint16_t epoch) {
  const RingHeader header = Header(slots, kind, epoch);
  std::memcpy(channel.memory().data() + header_offset_bytes, &header, sizeof header);
}

absl::Status CheckRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
                       uint16_t epoch) {
  const RingHeader own = Header(slots, kind, epoch);
  RingHeader there;
  std::memcpy(&there, channel.memory().data() + header_offset_bytes, sizeof there);
#define MNEMO_SAME(field)                                                                               \
  if (there.field != own.field) {                                                                       \
    return InvalidArgument("ring {}: {} is {}, expected {}", own.kind, #field, there.field, own.field); \
  }
  MNEMO_SAME(magic)
  MNEMO_SAME(abi_major)
  MNEMO_SAME(kind)
  MNEMO_SAME(epoch)
  MNEMO_SAME(slots)
  MNEMO_SAME(slot_bytes)
  MNEMO_SAME(slots_offset_bytes)
#undef MNEMO_SAME
  return absl::OkStatus();
}

RingEnd::RingEnd(Channel& channel, uint64_t header_offset_bytes, uint32_t slots)
    : channel_(channel), offset_(header_offset_bytes), slots_(slots) {
  MNEMO_CHECK(slots > 0 && (slots & (slots - 1)) == 0);
  MNEMO_CHECK(offset_ % kSlotBytes == 0 && offset_ + RingBytes(slots) <= channel.memory().size());
}

std::atomic_ref<uint32_t> RingEnd::Word(size_t header_field_offset) const {
  std::byte* at = channel_.memory().data() + offset_ + header_field_offset;
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at));
}

uint64_t RingEnd::SlotOffset(uint32_t index) const {
  return offset_ + sizeof(RingHeader) + uint64_t{index & (slots_ - 1)} * kSlotBytes;
}

RingProducer::RingProducer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin)
    : RingEnd(channel, header_offset_bytes, slots), head_(begin), tail_(begin) {
  if (begin != 0) {
    Word(offsetof(RingHeader, head)).store(begin, std::memory_order_relaxed);
    Word(offsetof(RingHeader, tail)).store(begin, std::memory_order_relaxed);
  }
}

RingConsumer::RingConsumer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin)
    : RingEnd(channel, header_offset_bytes, slots), tail_(begin) {
  if (begin != 0) {
    Word(offsetof(RingHeader, head)).store(begin, std::memory_order_relaxed);
    Word(offsetof(RingHeader, tail)).store(begin, std::memory_order_relaxed);
  }
}

absl::StatusOr<uint32_t> RingProducer::Free(uint32_t enough) const {
  const uint32_t known = slots_ - (head_ - tail_);
  if (known >= enough) return known;
  const uint32_t tail = Word(offsetof(RingHeader, tail)).load(std::memory_order_acquire);
  if (head_ - tail > slots_) {
    return Unavailable("the peer broke the ring: tail {} with head {} and {} slots", tail, head_, slots_);
  }
  tail_ = tail;
  return slots_ - (head_ - tail);
}

absl::Status RingProducer::PutBytes(const std::byte* slots, uint32_t count) {
  if (count == 0) return absl::OkStatus();
  for (uint32_t i = 0; i < count; ++i) {
    std::byte* to = channel_.memory().data() + SlotOffset(head_ + i);
    // Status and seq of a completion are its last eight bytes: one store, after all others.
    uint64_t last;
    std::memcpy(&last, slots + i * kSlotBytes + kSlotBytes - sizeof last, sizeof last);
    std::memcpy(to, slots + i * kSlotBytes, kSlotBytes - sizeof last);
    std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(to + kSlotBytes - sizeof last))
        .store(last, std::memory_order_release);
  }
  const uint32_t first = head_ & (slots_ - 1);
  const uint32_t until_end = std::min(count, slots_ - first);
  MNEMO_RETURN_IF_ERROR(channel_.Write(SlotOffset(head_), uint64_t{until_end} * kSlotBytes));
  if (until_end < count) {
    MNEMO_RETURN_IF_ERROR(channel_.Write(SlotOffset(0), uint64_t{count - until_end} * kSlotBytes));
  }
  MNEMO_RETURN_IF_ERROR(channel_.Fence());
  head_ += count;
  // This store and the load of `asleep`, and on the other side the store of `asleep` and the load of `head`,
  // are sequentially consistent. At least one side sees the other, so no wake-up is lost.
  Word(offsetof(RingHeader, head)).store(head_, std::memory_order_seq_cst);
  MNEMO_RETURN_IF_ERROR(channel_.Write(OffsetOf(offsetof(RingHeader, head)), sizeof head_));
  if (Word(offsetof(RingHeader, asleep)).load(std::memory_order_seq_cst) == 0) return absl::OkStatus();
  Word(offsetof(RingHeader, asleep)).store(0, std::memory_order_relaxed);
  return channel_.Wake();
}

uint32_t RingConsumer::waiting() const {
  return Word(offsetof(RingHeader, head)).load(std::memory_order_seq_cst) - tail_;
}

absl::StatusOr<uint32_t> RingConsumer::TakeBytes(std::byte* out, uint32_t limit) {
  const uint32_t head = Word(offsetof(RingHeader, head)).load(std::memory_order_acquire);
  const uint32_t there = head - tail_;
  if (there > slots_) {
    return Unavailable("the peer broke the ring: head {} with tail {} and {} slots", head, tail_, slots_);
  }
  const uint32_t count = std::min(there, limit);
  if (count == 0) return 0U;
  for (uint32_t i = 0; i < count; ++i) {
    std::memcpy(out + i * kSlotBytes, channel_.memory().data() + SlotOffset(tail_ + i), kSlotBytes);
  }
  tail_ += count;
  Word(offsetof(RingHeader, tail)).store(tail_, std::memory_order_release);
  MNEMO_RETURN_IF_ERROR(channel_.Write(OffsetOf(offsetof(RingHeader, tail)), sizeof tail_));
  return count;
}

void RingConsumer::SetAsleep(bool asleep) {
  Word(offsetof(RingHeader, asleep)).store(asleep ? 1 : 0, std::memory_order_seq_cst);
  // Only shared memory makes this visible to the other end; other channels wake on every arrival.
}

}  // namespace mnemo::transport
