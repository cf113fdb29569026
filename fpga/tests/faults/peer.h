#pragma once

// A peer of the card that attaches a queue of its own, as a GPU does: it writes queries and descriptors into
// host or card memory and reads results there. Its descriptors may be good, or anything.

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "fpga/card/direct_queues.h"
#include "fpga/tests/faults/stand.h"
#include "proto/layout/attach.h"
#include "proto/layout/validate.h"

namespace mnemo::card_faults {

enum class Place { kHost, kCard };

class Peer {
 public:
  static constexpr uint32_t kSlots = 4;
  static constexpr uint64_t kSlotBytes = 2048;  // of payload, and of results

  // Attaches nothing yet. Areas of different queues lie apart, with unused memory between them.
  Peer(Stand* stand, uint32_t number, Place place, bool poll, uint32_t first_index = 0);

  const card::DirectQueue& queue() const { return queue_; }
  uint32_t number() const { return number_; }
  absl::Status Attach();

  bool HasRoom() const { return under_way_.size() < kSlots; }
  // Room; the query's descriptor in a good form.
  layout::Descriptor Good(const Query& query) const;
  // Writes a descriptor with the query's payload. `d` may be another one than Good.
  void Push(const Query& query, const layout::Descriptor& d);
  void PushGood() {
    const Query query = stand_->NewQuery(/*direct=*/true);
    Push(query, Good(query));
  }
  // A good one with a field altered, or noise.
  void PushGarbage();
  // Shows the card the head, by ring and doorbell.
  void Ring() { RingHead(head_); }
  void RingHead(uint32_t head);
  // Reads completions that have come, and checks each: by their slots alone, as long as all seqs were right,
  // else when the ring's head counts them.
  uint32_t Collect();
  void Forget() { under_way_.clear(); }
  bool closed() const;

  uint32_t under_way() const { return static_cast<uint32_t>(under_way_.size()); }
  uint32_t right() const { return right_; }      // good descriptors with the reference's results
  uint32_t refused() const { return refused_; }  // others, as layout::Validate refuses them
  uint32_t wrong() const { return wrong_; }
  // Everything that the card may address for this queue.
  std::vector<card::CardSpace> Spaces();

  uint32_t Word(uint64_t address) const;
  void SetWord(uint64_t address, uint32_t value);

 private:
  struct Sent {
    Query query;
    layout::Descriptor d;
    layout::Verdict verdict;
    bool good;
    bool by_slot;  // its completion's seq tells that it is there
  };

  layout::Verdict VerdictOf(const layout::Descriptor& d) const;
  void Read(uint64_t address, std::span<uint8_t> to) const;
  void Write(uint64_t address, std::span<const uint8_t> from);
  bool Check(const Sent& sent, const layout::Completion& completion);

  Stand* const stand_;
  const uint32_t number_;
  card::DirectQueue queue_;
  layout::AttachHello granted_{};
  uint32_t head_ = 0;       // of the descriptors
  uint32_t collected_ = 0;  // of the completions
  uint32_t next_seq_ = 0;   // that the card expects
  std::deque<Sent> under_way_;
  uint32_t right_ = 0;
  uint32_t refused_ = 0;
  uint32_t wrong_ = 0;
};

}  // namespace mnemo::card_faults
