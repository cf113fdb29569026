#pragma once

// The registers of a card as the driver uses them: what it is, how it is reset, and queue 0.

#include <chrono>
#include <cstdint>
#include <vector>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/card/host_parts.h"
#include "proto/layout/attach.h"
#include "proto/layout/card.h"

namespace mnemo::card {

// In beats of card memory.
struct ChannelRange {
  uint64_t base = 0;
  uint64_t length = 0;
  friend bool operator==(const ChannelRange&, const ChannelRange&) = default;
};

// The read-only registers' contents, and the channels.
struct CardShape {
  std::vector<ChannelRange> channels;
  uint32_t queries = 0;  // of a pass, G
  uint32_t scores = 0;   // a cycle, S
  uint32_t bank_words = 0;
  uint32_t score_ops = 0;  // masks as in the register
  uint32_t formats = 0;
  uint32_t dims = 0;
  uint32_t max_group = 0;
  uint32_t max_k = 0;
  friend bool operator==(const CardShape&, const CardShape&) = default;
};

// Checks that the card is one that this driver knows. FAILED_PRECONDITION names both values of what differs.
absl::StatusOr<CardShape> ReadShape(CardPort* port);

absl::StatusOr<uint64_t> ReadPair(CardPort* port, uint32_t offset);
absl::Status WritePair(CardPort* port, uint32_t offset, uint64_t value);

// The end of a wait for the card: after the allowed time, and not before kLeastLooks looks. The host may be
// busy with other programs, and a simulated card runs only while it is looked at.
class Patience {
 public:
  static constexpr uint32_t kLeastLooks = 100;

  explicit Patience(std::chrono::milliseconds allowed) : allowed_(allowed) {}
  // Counts a look at the card that found it as before. True: the wait is over.
  bool Over();
  // The card has got on: time and looks begin again.
  void Renew();
  std::chrono::steady_clock::time_point since() const { return since_; }

 private:
  const std::chrono::milliseconds allowed_;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  uint32_t looks_ = 0;
};

// Returns when no transaction of the card is open. DEADLINE_EXCEEDED when that takes longer, by Patience.
absl::Status ResetCard(CardPort* port, std::chrono::milliseconds allowed);

// The registers of a queue. Addresses are the card's.
struct QueueSetup {
  uint64_t ring = 0;
  uint64_t completions = 0;
  uint32_t slots = 0;
  bool poll = false;               // the head is in the ring's header, not in the doorbell
  std::vector<CardSpace> regions;  // 1 or 2
  uint64_t table = 0;
  uint32_t indexes = 0;
  layout::AttachHello granted{};  // masks, maxima and epoch
  uint32_t index = 0;             // of the first descriptor in its ring; also its seq
};

constexpr uint32_t QueueRegister(uint32_t number, uint32_t offset) {
  return uint32_t{layout::kCardRegQueues} + number * uint32_t{layout::kCardQueueBytes} + offset;
}

// The setup of the driver's queue.
QueueSetup SetupOf(const HostParts& parts, uint64_t host_address);

// Writes a queue that is not enabled, and enables it. The rings are there.
absl::Status ProgramQueue(CardPort* port, uint32_t number, const QueueSetup& setup);

struct CardSetup {
  QueueSetup queue;       // 0
  uint32_t period = 0;    // nanoseconds of 256 cycles
  uint32_t watchdog = 0;  // cycles of a job; 0: no bound
};

// After a reset: writes channels, queue 0 and times, and lets the card run. The rings are there.
absl::Status ProgramCard(CardPort* port, const CardShape& shape, const CardSetup& setup);

// Lets the card end what is under way, while it takes nothing more, and run on. INTERNAL: it has failed.
// DEADLINE_EXCEEDED when that takes longer, by Patience.
absl::Status SettleCard(CardPort* port, std::chrono::milliseconds allowed);

// Lets the card interrupt when it is asked to.
absl::Status EnableInterrupts(CardPort* port);

// INTERNAL: the card has failed, and why.
absl::Status CheckFailure(CardPort* port);

}  // namespace mnemo::card
