// Division of one interval against an independent count: time is cut at every boundary, and each piece is
// divided by itself.
#include "server/telemetry/energy/division.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <utility>

namespace mnemo::attribution {
namespace {

using Approx = Catch::Detail::Approx;
using energy::DeviceKind;

constexpr WorkDevice kCpu = {DeviceKind::kCpu, 0};

energy::EnergyInterval Interval(int64_t begin_ms, int64_t end_ms, double joules) {
  return {{DeviceKind::kCpu, 0, "rapl"}, begin_ms * 1'000'000, end_ms * 1'000'000, joules};
}

WorkSpan Span(uint64_t request, EnergyStep step, int64_t begin_ms, int64_t end_ms, double work_ms) {
  return {request, step, kCpu, begin_ms * 1'000'000, end_ms * 1'000'000, work_ms * 1e6};
}

InFlight Flight(uint64_t request, int64_t begin_ms, int64_t end_ms) {
  return {request, begin_ms * 1'000'000, end_ms * 1'000'000};
}

std::map<std::pair<uint64_t, EnergyStep>, double> Sums(const Division& division) {
  std::map<std::pair<uint64_t, EnergyStep>, double> sums;
  for (const Share& share : division.shares) sums[{share.request, share.step}] += share.joules;
  return sums;
}

}  // namespace

TEST_CASE("energy above idle goes by the overlap of spans, the rest by time in flight") {
  // 20 J in 1 s with 5 W of idle power: 15 J active, 12 J of them ours.
  const std::vector<WorkSpan> spans = {
      Span(1, EnergyStep::kDecode, 500, 1500, 800),  // half of it in the interval: 400
      Span(2, EnergyStep::kPrefill, 0, 500, 100), Span(2, EnergyStep::kRelevancy, 0, 500, 100),
      Span(3, EnergyStep::kDecode, 2000, 3000, 500),  // after it
  };
  const std::vector<InFlight> requests = {Flight(2, 0, 500), Flight(1, 250, 1500)};
  Division division;
  Divide({Interval(0, 1000, 20), 0.8, 5, IdleShare::kBusy}, spans, requests, &division);
  auto sums = Sums(division);
  CHECK(sums[{1, EnergyStep::kDecode}] == Approx(8));
  CHECK(sums[{2, EnergyStep::kPrefill}] == Approx(2));
  CHECK(sums[{2, EnergyStep::kRelevancy}] == Approx(2));
  CHECK(sums[{1, EnergyStep::kIdle}] == Approx(3));
  CHECK(sums[{2, EnergyStep::kIdle}] == Approx(2));
  CHECK(sums.size() == 5);
  CHECK(division.uses.request == Approx(17));
  CHECK(division.uses.other == Approx(3));
  CHECK(division.uses.overhead == 0);
  CHECK(division.uses.idle == Approx(0).margin(1e-12));
}

TEST_CASE("without spans active energy is overhead, and without requests idle energy is nobody's") {
  Division division;
  Divide({Interval(0, 1000, 20), 0.8, 5, IdleShare::kBusy}, {}, {}, &division);
  CHECK(division.shares.empty());
  CHECK(division.uses.request == 0);
  CHECK(division.uses.overhead == Approx(12));
  CHECK(division.uses.other == Approx(3));
  CHECK(division.uses.idle == Approx(5));

  const std::vector<InFlight> requests = {Flight(1, 750, 1000)};
  Divide({Interval(0, 1000, 3), 0.8, 5, IdleShare::kBusy}, {}, requests, &division);
  // All of the 3 J are idle energy, and a quarter of the time is paid.
  CHECK(division.uses.request == Approx(0.75));
  CHECK(division.uses.idle == Approx(2.25));
  Divide({Interval(0, 1000, 3), 0.8, 5, IdleShare::kNone}, {}, requests, &division);
  CHECK(division.uses.request == 0);
  CHECK(division.uses.idle == Approx(3));
}

TEST_CASE("spans count for the devices that they cover") {
  const WorkDevice gpu1 = {DeviceKind::kGpu, 1};
  CHECK(kCpu.Covers({DeviceKind::kCpu, 1, ""}));
  CHECK(kCpu.Covers({DeviceKind::kDram, 0, ""}));
  CHECK_FALSE(kCpu.Covers({DeviceKind::kGpu, 0, ""}));
  CHECK(gpu1.Covers({DeviceKind::kGpu, 1, ""}));
  CHECK_FALSE(gpu1.Covers({DeviceKind::kGpu, 0, ""}));
  CHECK_FALSE(gpu1.Covers({DeviceKind::kCpu, 1, ""}));
}

TEST_CASE("an interval's uses sum to its joules and agree with a count over pieces of time") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto draw = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
  for (int round = 0; round < 200; ++round) {
    energy::EnergyInterval interval = Interval(1000, 1000 + draw(1, 300), draw(0, 500) * 0.1);
    if (draw(0, 1) == 0) interval.work = {draw(0, 3) * 1e-9, draw(1, 3) * 1e-9};
    const DivisionInput input = {interval, draw(0, 10) * 0.1, draw(0, 300) * 1.0,
                                 draw(0, 3) == 0 ? IdleShare::kNone : IdleShare::kBusy};
    std::vector<WorkSpan> spans;
    std::vector<InFlight> requests;
    for (uint64_t id = 1; id <= static_cast<uint64_t>(draw(0, 6)); ++id) {
      const int begin = draw(900, 1300);
      requests.push_back(Flight(id, begin, begin + draw(0, 300)));
      for (int i = draw(0, 3); i > 0; --i) {
        const int start = draw(900, 1300);
        const int length = draw(1, 200);
        spans.push_back(
            Span(id, static_cast<EnergyStep>(draw(1, 6)), start, start + length, draw(1, length)));
        spans.back().bytes = draw(0, 1000) * 1e6;
        spans.back().operations = draw(0, 1000) * 1e6;
      }
    }
    std::sort(requests.begin(), requests.end(), [](auto& a, auto& b) { return a.begin_ns < b.begin_ns; });
    Division division;
    Divide(input, spans, requests, &division);
    // The oracle walks the interval in milliseconds: no span or request has a boundary inside one.
    std::map<std::pair<uint64_t, EnergyStep>, double> work, flight;
    std::map<std::pair<uint64_t, EnergyStep>, double> modelled;
    double work_sum = 0, flight_sum = 0, modelled_sum = 0;
    int occupied = 0;
    const auto length = static_cast<int>((interval.end_ns - interval.begin_ns) / 1'000'000);
    for (int64_t at = interval.begin_ns; at < interval.end_ns; at += 1'000'000) {
      bool any = false;
      for (const WorkSpan& span : spans) {
        if (at < span.begin_ns || at >= span.end_ns) continue;
        const double part = span.work_ns / static_cast<double>(span.end_ns - span.begin_ns);
        work[{span.request, span.step}] += part;
        work_sum += part;
        const double joules = (input.interval.work.joules_per_byte * span.bytes +
                               input.interval.work.joules_per_operation * span.operations) *
                              1e6 / static_cast<double>(span.end_ns - span.begin_ns);
        modelled[{span.request, span.step}] += joules;
        modelled_sum += joules;
      }
      for (const InFlight& request : requests) {
        if (at < request.begin_ns || at >= request.end_ns) continue;
        any = true;
        flight[{request.request, EnergyStep::kIdle}] += 1;
        flight_sum += 1;
      }
      occupied += any ? 1 : 0;
    }
    const double idle = std::min(interval.joules, input.idle_watts * length * 1e-3);
    const double own = (interval.joules - idle) * input.own_share;
    const double paid = input.idle_share == IdleShare::kBusy ? idle * occupied / length : 0;
    std::map<std::pair<uint64_t, EnergyStep>, double> expected;
    for (const auto& [key, part] : work) expected[key] += own * part / work_sum;
    for (const auto& [key, part] : flight) {
      if (paid > 0) expected[key] += paid * part / flight_sum;
    }
    for (const auto& [key, joules] : modelled) expected[key] += joules;
    auto sums = Sums(division);
    double shared = 0;
    for (const auto& [key, joules] : sums) {
      CHECK(joules == Approx(expected[key]).margin(1e-9));
      shared += joules;
    }
    for (const auto& [key, joules] : expected) CHECK(sums[key] == Approx(joules).margin(1e-9));
    CHECK(std::abs(division.uses.sum() - interval.joules - modelled_sum) < 1e-9);
    CHECK(std::abs(division.uses.request - shared) < 1e-9);
    CHECK(division.uses.overhead == Approx(work_sum > 0 ? 0 : own).margin(1e-9));
    CHECK(division.uses.idle == Approx(idle - paid).margin(1e-9));
  }
}

}  // namespace mnemo::attribution
