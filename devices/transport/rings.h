// The two ends of a single-producer single-consumer ring of 64-byte slots in a channel's memory
// (proto/layout/ring.h). Neither end trusts the header after its creation. The number of slots and the own
// index are kept here, and the other side's index is checked whenever it is read.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "devices/base/status.h"
#include "devices/transport/channel.h"
#include "proto/layout/ring.h"

namespace mnemo::transport {

inline constexpr uint32_t kSlotBytes = 64;

// Returns the bytes of header and slots.
constexpr uint64_t RingBytes(uint32_t slots) {
  return sizeof(layout::RingHeader) + uint64_t{slots} * kSlotBytes;
}

// Makes an empty ring at header_offset_bytes, a multiple of 64. slots: a power of two.
void MakeRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
              uint16_t epoch);
// Checks that the header is the one that MakeRing writes with these arguments. INVALID_ARGUMENT names the
// field.
absl::Status CheckRing(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, layout::RingKind kind,
                       uint16_t epoch);

// Common part of both ends.
class RingEnd {
 protected:
  // The ring lies within the channel's memory; the channel must outlive this object.
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
  // `begin`: the initial indices of a ring that this number of slots has passed through; 0 for a new ring.
  RingProducer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin = 0);

  // Returns the number of free slots, or a smaller number. The consumer's index is read only when fewer than
  // `enough` slots are known to be free, since the consumer must then fetch its cache line back. UNAVAILABLE:
  // the index is invalid, the ring is broken.
  absl::StatusOr<uint32_t> Free(uint32_t enough) const;
  // Fills slots, publishes them together and wakes the consumer if it sleeps. The number of slots must not
  // exceed the result of Free().
  template <typename Slot>
  absl::Status Put(std::span<const Slot> slots) {
    static_assert(sizeof(Slot) == kSlotBytes);
    return PutBytes(reinterpret_cast<const std::byte*>(slots.data()), static_cast<uint32_t>(slots.size()));
  }

 private:
  absl::Status PutBytes(const std::byte* slots, uint32_t count);
  uint32_t head_;
  // The consumer's index as last read.
  mutable uint32_t tail_;
};

class RingConsumer : private RingEnd {
 public:
  RingConsumer(Channel& channel, uint64_t header_offset_bytes, uint32_t slots, uint32_t begin = 0);

  // Returns whether Take would return slots or detect a broken ring.
  bool Ready() const { return waiting() != 0; }
  // Returns the number of slots that Take would return; more than the ring has when it is broken.
  uint32_t waiting() const;
  // Copies at most out.size() slots and frees them. UNAVAILABLE: the producer's index is invalid.
  template <typename Slot>
  absl::StatusOr<uint32_t> Take(std::span<Slot> out) {
    static_assert(sizeof(Slot) == kSlotBytes);
    return TakeBytes(reinterpret_cast<std::byte*>(out.data()), static_cast<uint32_t>(out.size()));
  }
  // Call before sleeping: from then on Put wakes this consumer. Check Ready() once more between this call and
  // sleeping.
  void SetAsleep(bool asleep);

 private:
  absl::StatusOr<uint32_t> TakeBytes(std::byte* out, uint32_t limit);
  uint32_t tail_;
};

}  // namespace mnemo::transport
