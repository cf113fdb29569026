#pragma once

// A card with one index and its queues, set up as a driver would, for tests of the model.

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "fpga/card/model/model_port.h"
#include "proto/layout/card.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"

namespace mnemo::card::model {

// The index, and the limits that the queue grants.
struct TestIndex {
  uint32_t format = layout::kFormatCodes2;
  uint32_t dim = 64;
  uint32_t heads = 1;
  uint32_t layer_slots = 1;
  uint32_t tokens = 0;  // of every slot
  uint32_t shift = 0;
};

class TestCard {
 public:
  static constexpr uint32_t kSlots = 8;
  static constexpr uint16_t kEpoch = 7;
  static constexpr uint32_t kIndexId = 2;
  static constexpr uint16_t kGeneration = 11;
  static constexpr uint32_t kFirstSeq = 100;
  // Units of kUnitBytes within region 0.
  static constexpr uint32_t kPayloadAt = 16;
  static constexpr uint32_t kResultAt = 8192;
  static constexpr uint32_t kRegionUnits = 65536;

  // Begins the rings at index `first`.
  TestCard(const ModelOptions& options, const TestIndex& index, std::mt19937& random, uint32_t first = 0);

  ModelPort& port() { return *port_; }
  const TestIndex& index() const { return index_; }
  // The wire records of a slot and head, one a page.
  std::vector<const uint8_t*> Records(uint32_t slot, uint32_t head) const;
  // Writes one entry of the page list of a page.
  void SetExtent(uint32_t page, uint32_t extent);
  void SetIndex(const layout::CardIndex& entry);
  layout::CardIndex Entry() const;

  uint32_t Register(uint32_t offset);
  void SetRegister(uint32_t offset, uint32_t value);
  void SetQueue(uint32_t offset, uint32_t value, uint32_t queue = 0) {
    SetRegister(layout::kCardRegQueues + queue * layout::kCardQueueBytes + offset, value);
  }
  uint32_t Queue(uint32_t offset, uint32_t queue = 0) {
    return Register(layout::kCardRegQueues + queue * layout::kCardQueueBytes + offset);
  }
  // Writes all registers of a queue, and enables it. The constructor does so for queue 0.
  void SetUpQueue(uint32_t queue = 0);

  uint8_t* Payload() { return host() + kRegionAt + size_t{kPayloadAt} * layout::kUnitBytes; }
  uint8_t* Result() { return host() + kRegionAt + size_t{kResultAt} * layout::kUnitBytes; }

  // A descriptor of one position and all heads, with room for payload and results.
  layout::Descriptor NewDescriptor(uint32_t queue = 0) const;
  // Sets payload_length and result_length to what the descriptor needs.
  void SetLengths(layout::Descriptor* descriptor) const;
  // Puts a descriptor into the ring and tells the card.
  void Ring(const layout::Descriptor& descriptor, uint32_t queue = 0);
  // Returns whether there was a new completion.
  bool Take(layout::Completion* completion, uint32_t queue = 0);
  // Both; the card must answer.
  layout::Completion Run(const layout::Descriptor& descriptor);
  uint32_t next_seq() const { return queues_[0].next_seq; }

 private:
  struct QueueState {
    uint32_t head = 0;
    uint32_t tail = 0;  // of the completions
    uint32_t next_seq = kFirstSeq;
  };

  // The rings of a queue, and where the others follow.
  static constexpr uint64_t kRingAt = 4096;
  static constexpr uint64_t kCompletionsAt = 16384;
  static constexpr uint64_t kRingBytes = 1024;
  static constexpr uint64_t kTableAt = 32768;
  static constexpr uint64_t kTokensAt = 36864;
  static constexpr uint64_t kRegionAt = 1 << 20;
  static constexpr uint32_t kListBeat = 3;
  static constexpr uint32_t kFirstExtent = 4096;

  uint8_t* host() { return port_->host_memory().data(); }
  const uint8_t* host() const { return port_->host_memory().data(); }
  uint64_t Address(uint64_t at) const { return port_->host_address() + at; }
  void SetPair(uint32_t offset, uint64_t value, uint32_t queue);
  uint64_t ChannelAddress(uint32_t lane);
  void StorePages(std::mt19937& random);

  TestIndex index_;
  std::unique_ptr<ModelPort> port_;
  std::vector<std::vector<uint8_t>> records_;  // [page][slot][head]
  uint32_t first_;
  std::array<QueueState, layout::kCardQueues> queues_;
};

// A query block of random queries: ordinary, equal to each other, of zeros, or with extreme codes and
// parameters.
void FillQueries(uint32_t group, uint32_t dim, uint32_t format, std::mt19937& random, uint8_t* block);

}  // namespace mnemo::card::model
