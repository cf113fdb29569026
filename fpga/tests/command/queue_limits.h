#pragma once

// A queue of the card as its tests set it up, and what proto/layout says of its descriptors.

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "proto/layout/card.h"
#include "proto/layout/validate.h"

namespace mnemo::rtl_command {

// Shape of the Verilated benches: that of a small card, unless the build says another.
#ifndef MNEMO_CHANNELS
#define MNEMO_CHANNELS 2
#define MNEMO_BANK_WORDS 64
#endif
constexpr uint32_t kChannels = MNEMO_CHANNELS;
constexpr uint32_t kPassQueries = 4;
constexpr uint32_t kBankWords = MNEMO_BANK_WORDS;

// The registers of a queue, word by word.
using QueueWords = std::array<uint32_t, 24>;

struct QueueLimits {
  layout::AttachHello granted{};
  std::vector<uint64_t> region_bytes;

  // The words that say the same; addresses stay 0.
  QueueWords Words() const;
  layout::Limits Limits(uint32_t next_seq) const;
};

// An index as the host's table has it.
struct TableIndex {
  layout::CardIndex entry{};
  std::vector<uint32_t> tokens;  // of slots

  // As a service has it: without the index when `index_id` is out of bounds.
  layout::IndexInfo Info(uint32_t layer_slot) const;
};

QueueLimits RandomLimits(std::mt19937_64& random);
// Grants all that a card serves, regions of the given units.
QueueLimits WideLimits(std::vector<uint64_t> region_units);
TableIndex RandomIndex(std::mt19937_64& random, uint32_t max_tokens);

// A descriptor that Validate accepts for the index, if the limits grant all that it uses.
layout::Descriptor GoodDescriptor(std::mt19937_64& random, const QueueLimits& limits,
                                  const TableIndex& index);
// Alters one field: to a value at a bound, or to any.
void AlterField(std::mt19937_64& random, layout::Descriptor* d);

// Whether a scan by max or plain max has more scores than a bank holds.
bool LongScan(const layout::Descriptor& d);

// layout::Validate, then what the card serves by the contract: kOpScoreSelect but weighted sums; dims 16 to
// 256; a scan that fits a bank, or a long one. The numbers of its pages have 24 bits.
layout::Verdict ExpectedVerdict(const layout::Descriptor& d, const QueueLimits& limits, uint32_t next_seq,
                                const layout::IndexInfo& info);

}  // namespace mnemo::rtl_command
