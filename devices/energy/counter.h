// One raw counter of energy or power, as the hardware's own interface gives it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/base/status.h"
#include "devices/energy/energy_meter.h"

namespace mnemo::energy {

struct CounterInfo {
  MeteredDevice device;
  // False: Read gives a growing count. True: Read gives the present power in watts.
  bool is_power = false;
  double joules_per_count = 1;
  // The largest count, after which it begins again at 0. 0: unknown, so that a step back cannot be explained.
  uint64_t range = 0;
  // More power than the device can draw. Bounds the time over which a wrap is unambiguous.
  double max_watts = 2000;
};

struct RawReading {
  uint64_t count = 0;  // unless is_power
  double watts = 0;    // if is_power
};

// One thread. Read blocks for the reading itself.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual const CounterInfo& info() const = 0;
  // Opens again what an earlier failure has closed. UNIMPLEMENTED: the device has no such counter, and never
  // will; every other error may pass.
  virtual absl::StatusOr<RawReading> Read() = 0;
};

using Counters = std::vector<std::unique_ptr<Counter>>;

}  // namespace mnemo::energy
