#include "server/telemetry/energy/division.h"

#include <algorithm>

namespace mnemo::attribution {
namespace {

int64_t Overlap(int64_t begin_a, int64_t end_a, int64_t begin_b, int64_t end_b) {
  return std::max<int64_t>(0, std::min(end_a, end_b) - std::max(begin_a, begin_b));
}

// Part of the span that falls into the time, [0, 1]; 0 on another device.
double PartIn(const energy::MeteredDevice& device, int64_t begin_ns, int64_t end_ns, const WorkSpan& span) {
  const int64_t overlap = Overlap(begin_ns, end_ns, span.begin_ns, span.end_ns);
  if (overlap == 0 || !span.device.Covers(device)) return 0;
  return static_cast<double>(overlap) / static_cast<double>(span.end_ns - span.begin_ns);
}

// Energy of the span by a model of work.
double JoulesOf(const energy::WorkFigures& figures, const WorkSpan& span) {
  return figures.joules_per_byte * span.bytes + figures.joules_per_operation * span.operations;
}

// Divides idle energy by the time that requests are in flight; the time without any is nobody's.
void DivideIdle(const energy::EnergyInterval& interval, double idle, std::span<const InFlight> requests,
                Division* division) {
  int64_t sum_ns = 0;      // request-seconds
  int64_t covered_ns = 0;  // time with a request in flight
  int64_t covered_end = interval.begin_ns;
  for (const InFlight& request : requests) {
    const int64_t overlap = Overlap(interval.begin_ns, interval.end_ns, request.begin_ns, request.end_ns);
    if (overlap == 0) continue;
    sum_ns += overlap;
    const int64_t begin = std::max(request.begin_ns, covered_end);
    const int64_t end = std::min(request.end_ns, interval.end_ns);
    covered_ns += std::max<int64_t>(0, end - begin);
    covered_end = std::max(covered_end, end);
  }
  const double paid =
      idle * static_cast<double>(covered_ns) / static_cast<double>(interval.end_ns - interval.begin_ns);
  division->uses.idle += idle - paid;
  if (sum_ns == 0) return;
  division->uses.request += paid;
  for (const InFlight& request : requests) {
    const int64_t overlap = Overlap(interval.begin_ns, interval.end_ns, request.begin_ns, request.end_ns);
    if (overlap == 0) continue;
    division->shares.push_back({request.request, EnergyStep::kIdle,
                                paid * static_cast<double>(overlap) / static_cast<double>(sum_ns)});
  }
}

}  // namespace

void Uses::Add(const Uses& more) {
  request += more.request;
  overhead += more.overhead;
  idle += more.idle;
  other += more.other;
}

double WorkIn(const energy::MeteredDevice& device, int64_t begin_ns, int64_t end_ns,
              std::span<const WorkSpan> spans) {
  double work_ns = 0;
  for (const WorkSpan& span : spans) work_ns += span.work_ns * PartIn(device, begin_ns, end_ns, span);
  return work_ns;
}

void Divide(const DivisionInput& input, std::span<const WorkSpan> spans, std::span<const InFlight> requests,
            Division* division) {
  division->uses = {};
  division->shares.clear();
  const energy::EnergyInterval& interval = input.interval;
  const double seconds = static_cast<double>(interval.end_ns - interval.begin_ns) * 1e-9;
  const double idle = std::min(interval.joules, input.idle_watts * seconds);
  const double active = interval.joules - idle;
  const double own = active * input.own_share;
  division->uses.other = active - own;
  const double work = WorkIn(interval.device, interval.begin_ns, interval.end_ns, spans);
  division->own_joules = own;
  division->work_ns = work;
  if (work > 0) {
    division->uses.request = own;
    for (const WorkSpan& span : spans) {
      const double part = PartIn(interval.device, interval.begin_ns, interval.end_ns, span);
      if (part == 0) continue;
      const double modelled = part * JoulesOf(interval.work, span);
      division->uses.request += modelled;
      division->shares.push_back({span.request, span.step, own * part * span.work_ns / work + modelled});
    }
  } else {
    division->uses.overhead = own;
  }
  if (input.idle_share == IdleShare::kNone) {
    division->uses.idle += idle;
  } else {
    DivideIdle(interval, idle, requests, division);
  }
}

}  // namespace mnemo::attribution
