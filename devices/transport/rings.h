// The two ends of a single-producer single-consumer ring of 64-byte slots in a channel's memory
// (proto/layout/ring.h). Neither trusts the header after it was made: the number of slots and the own index
// are kept here, and the other side's index is checked whenever it is read.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "devices/base/status.h"
#include "devices/transport/channel.h"
#include "proto/layout/ring.h"

namespace mnemo::transport {

inline constexpr uint32_t kSlotBytes = 64;

constexpr uint64_t RingBytes(uint32_t slots) {
  return sizeof(layout::RingHeader) + uint64_t{slots} * kSlotBytes;
}

// Makes an empty ring at header_offset_bytes, a multiple of 64. slots: a power of two.
void MakeRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
              uint16_t epoch);
// Whether the header is what MakeRing with these arguments writes. INVALID_ARGUMENT names the field.
absl::Status CheckRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
                       uint16_t epoch);

// Common to both ends.
class RingEnd {
 protected:
  // The ring lies within the channel's memory, which outlives this.
  RingEnd(Channel& channel, uint64_t header_offset_bytes, uint32_t slots);

  std::atomic_ref<uint32_t> Word(size_t header_field_offset) const;
  uint64_t OffsetOf(size_t header_field_offset) const { return offset_ + header_field_offset; }
  uint64_t SlotOffset(uint32_t index) const;

  Channel& channel_;
  const uint64_t offset_;
  const uint32_t slots_;
};

class RingProducer : private RingEnd {
 public:
  // `begin`: indices of a ring through which so much has gone already; of a new one 0.
  RingProducer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin = 0);

  // Slots that are free, or fewer: the consumer's index, whose cache line the consumer then has to fetch
  // back, is read only when fewer than `enough` are known to be. UNAVAILABLE: it makes no sense, the ring is
  // broken.
  absl::StatusOr<uint32_t> Free(uint32_t enough) const;
  // Fills slots, publishes them together and wakes the consumer if it sleeps. `count` is at most what Free()
  // said.
  template <typename Slot>
  absl::Status Put(std::span<const Slot> slots) {
    static_assert(sizeof(Slot) == kSlotBytes);
    return PutBytes(reinterpret_cast<const std::byte*>(slots.data()), static_cast<uint32_t>(slots.size()));
  }

 private:
  absl::Status PutBytes(const std::byte* slots, uint32_t count);
  uint32_t head_;
  mutable uint32_t tail_;  // the consumer's, when it was last read
};

class RingConsumer : private RingEnd {
 public:
  RingConsumer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin = 0);

  // Whether Take would give something (or find the ring broken).
  bool Ready() const { return waiting() != 0; }
  // Slots that Take would give; more than the ring has when it is broken.
  uint32_t waiting() const;
  // Copies at most out.size() slots and frees them. UNAVAILABLE: the producer's index makes no sense.
  template <typename Slot>
  absl::StatusOr<uint32_t> Take(std::span<Slot> out) {
    static_assert(sizeof(Slot) == kSlotBytes);
    return TakeBytes(reinterpret_cast<std::byte*>(out.data()), static_cast<uint32_t>(out.size()));
  }
  // Before the consumer sleeps: from then on Put wakes. Look at Ready() once more between this and sleeping.
  void SetAsleep(bool asleep);

 private:
  absl::StatusOr<uint32_t> TakeBytes(std::byte* out, uint32_t limit);
  uint32_t tail_;
};

}  // namespace mnemo::transport
