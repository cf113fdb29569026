// Messages of mnemo-energy to its clients: totals of the meters, one packet of a SOCK_SEQPACKET socket each.
//
//   mnemo-energy 1 INSTANCE
//   cpu0 rapl 1 END_NS TENTHS BACKWARDS STUCK GAP ERROR
//
// Text, a line a meter. INSTANCE differs after each start. END_NS is the end of the last interval
// (CLOCK_MONOTONIC); TENTHS is the energy of all intervals in 0.1 J, rounded down.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "devices/energy/meter.h"

namespace mnemo::energy {

// Readings are no finer than this, and come no faster than every 100 ms. A side channel by RAPL needs the
// energy of single instructions, and so thousands of readings a second in units of 61 uJ (CVE-2020-8694). The
// total is rounded, not each difference, so that errors do not add up.
inline constexpr double kServedJoules = 0.1;
inline constexpr int64_t kServedIntervalNs = 100'000'000;
inline constexpr size_t kMaxReadings = 256;
inline constexpr size_t kMaxMessageBytes = 64 << 10;

struct Reading {
  MeterReport meter;
  int64_t end_ns = 0;   // 0: no interval so far
  uint64_t tenths = 0;  // of joules
};

struct Readings {
  uint64_t instance = 0;
  std::vector<Reading> meters;  // at most kMaxReadings
};

std::string EncodeReadings(const Readings& readings);
// DATA_LOSS tells the line that is wrong.
absl::StatusOr<Readings> DecodeReadings(std::string_view message);

}  // namespace mnemo::energy
