#pragma once

// Subjects of the card's figures: scans and descriptors of given sizes, with the time that each may take.

#include <cstdint>
#include <span>
#include <string_view>

#include "proto/layout/descriptor.h"

namespace mnemo::card::report {

enum class Measure {
  kScan,        // the scan of one head
  kDescriptor,  // doorbell to completion
};

// The order of the scores of tokens 0, 1, 2 ...
enum class Order {
  kRandom,
  kRising,   // hits are the last tokens
  kFalling,  // hits are the first tokens
  kEqual,    // so are they: ties go to the lower id
  kSpike,    // one token is above all others, which are equal
};

// One layer slot, one position; all tokens are scanned.
struct Workload {
  std::string_view name;  // for --only
  Measure measure;
  uint32_t tokens;
  uint32_t heads;
  uint32_t dim;
  uint32_t group;
  uint32_t k;
  uint8_t format;          // of the records: layout::Format
  bool sign_stage;         // the first stage of a cascade; the second one is of one page
  double bound_us;         // on the card of 32 channels at 250 MHz
  std::string_view about;  // in words
  bool relu = false;       // weighted ReLU of the group's queries
  Order order = Order::kRandom;
};

// Most that selections may add to the scans of a long descriptor, as a share of them.
constexpr double kSelectionBound = 0.07;
// That of the workload; 0: it has none.
double SelectionBound(const Workload& workload);

std::span<const Workload> Workloads();

// The token of Order::kSpike.
uint32_t SpikeOf(uint32_t tokens);

// Least time of the published card for the workload's keys: they have 16 bits there, and its kernels get at
// most 38 of 460 GB/s. 0 where it has no such scan.
double PublishedUs(const Workload& workload);

// The descriptor, without lengths, offsets and ids.
layout::Descriptor DescriptorOf(const Workload& workload);

}  // namespace mnemo::card::report
