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

// One layer slot, one position; queries are random, all tokens are scanned.
struct Workload {
  std::string_view name;  // for --only
  Measure measure;
  uint32_t tokens;
  uint32_t heads;
  uint32_t dim;
  uint32_t group;
  uint32_t k;
  uint8_t format;          // of the records: layout::Format
  bool sign_stage;         // the first stage of a cascade
  double bound_us;         // on the card of 32 channels at 250 MHz
  std::string_view about;  // in words
};

std::span<const Workload> Workloads();

// Least time of the published card for the workload's keys: they have 16 bits there, and its kernels get at
// most 38 of 460 GB/s. 0 where it has no such scan.
double PublishedUs(const Workload& workload);

// The descriptor, without lengths, offsets and ids.
layout::Descriptor DescriptorOf(const Workload& workload);

}  // namespace mnemo::card::report
