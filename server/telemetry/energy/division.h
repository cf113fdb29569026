// Formula of attribution: one device's energy in one interval, divided between requests and the other uses.
// docs/ENERGY.md states it.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "devices/energy/energy_meter.h"
#include "server/telemetry/energy/energy_spans.h"

namespace mnemo::attribution {

// Device that did the work. Work of a CPU counts for every package and its memory, since which package ran a
// thread is not known.
struct WorkDevice {
  energy::DeviceKind kind = energy::DeviceKind::kCpu;
  int index = 0;

  bool Covers(const energy::MeteredDevice& device) const {
    if (kind != energy::DeviceKind::kCpu) return kind == device.kind && index == device.index;
    return device.kind == energy::DeviceKind::kCpu || device.kind == energy::DeviceKind::kDram;
  }
};

// Work for one request and step in [begin_ns, end_ns), CLOCK_MONOTONIC, spread evenly over that time.
struct WorkSpan {
  uint64_t request = 0;
  EnergyStep step = EnergyStep::kDecode;
  WorkDevice device;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;     // > begin_ns
  double work_ns = 0;     // busy time of the device, > 0
  double bytes = 0;       // that the work reads and writes
  double operations = 0;  // its multiply-adds
};

// Time from a request's arrival at the dispatcher to its end.
struct InFlight {
  static constexpr int64_t kRunning = std::numeric_limits<int64_t>::max();

  uint64_t request = 0;
  int64_t begin_ns = 0;
  int64_t end_ns = kRunning;
};

enum class IdleShare { kBusy, kNone };  // energy.idle_share

struct Uses {
  double request = 0;   // sum over all requests
  double overhead = 0;  // active energy of our processes while no span covers the interval
  double idle = 0;      // idle energy that no request pays
  double other = 0;     // active energy of other programs

  double sum() const { return request + overhead + idle + other; }
  void Add(const Uses& more);
};

struct Share {
  uint64_t request = 0;
  EnergyStep step = EnergyStep::kIdle;
  double joules = 0;
};

struct Division {
  Uses uses;
  double own_joules = 0;      // active energy of our processes, without that of work figures
  double work_ns = 0;         // of all spans, in the interval
  std::vector<Share> shares;  // in no order; a request and step may occur several times
};

struct DivisionInput {
  energy::EnergyInterval interval;
  double own_share = 1;   // CPU time of our processes divided by the busy time of all CPUs, [0, 1]
  double idle_watts = 0;  // >= 0
  IdleShare idle_share = IdleShare::kBusy;
};

// Work of the spans on the device in [begin_ns, end_ns), in ns of its busy time.
double WorkIn(const energy::MeteredDevice& device, int64_t begin_ns, int64_t end_ns,
              std::span<const WorkSpan> spans);

// Pure. `requests` are sorted by begin_ns. Spans of other devices and times are passed over. The uses sum to
// the interval's joules and those of its work figures, the shares to uses.request, up to rounding of doubles.
void Divide(const DivisionInput& input, std::span<const WorkSpan> spans, std::span<const InFlight> requests,
            Division* division);

}  // namespace mnemo::attribution
