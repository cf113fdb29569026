#include "server/telemetry/energy/ledger.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace mnemo::attribution {
namespace {

using Approx = Catch::Detail::Approx;
using energy::DeviceKind;

constexpr int64_t kMs = 1'000'000;
const energy::MeteredDevice kPackage = {DeviceKind::kCpu, 0, "rapl"};

energy::EnergyInterval Interval(int64_t begin_ms, int64_t end_ms, double joules) {
  return {kPackage, begin_ms * kMs, end_ms * kMs, joules};
}

WorkSpan Span(uint64_t request, int64_t begin_ms, int64_t end_ms) {
  return {request, EnergyStep::kDecode, {DeviceKind::kCpu, 0}, begin_ms * kMs, end_ms * kMs, 1e6};
}

LedgerOptions WithIdle(double watts) {
  LedgerOptions options;
  options.idle_watts = [watts](const energy::MeteredDevice&) { return watts; };
  return options;
}

Uses UsesOf(const Ledger& ledger) { return ledger.Devices().at(0).uses; }

}  // namespace

TEST_CASE("an interval settles when the spans of its requests have come, or after two more") {
  Ledger ledger(WithIdle(0));
  std::vector<RequestEnergy> complete;
  ledger.BeginRequest(1, "a", "dense", 0);
  ledger.AddSpan(Span(1, 0, 60));
  ledger.AddInterval(Interval(0, 100, 10), 1);
  ledger.Settle(100 * kMs, &complete);
  CHECK(UsesOf(ledger).sum() == 0);
  ledger.AddSpan(Span(1, 60, 110));
  ledger.Settle(110 * kMs, &complete);
  CHECK(UsesOf(ledger).request == Approx(10));
  // A request that waits for a worker has none; nothing else waits for it longer than that.
  ledger.AddInterval(Interval(100, 200, 10), 1);
  ledger.BeginRequest(2, "b", "dense", 120 * kMs);
  ledger.AddSpan(Span(1, 110, 210));
  ledger.Settle(399 * kMs, &complete);
  CHECK(UsesOf(ledger).sum() == Approx(10));
  ledger.Settle(400 * kMs, &complete);
  CHECK(UsesOf(ledger).request == Approx(20));
}

TEST_CASE("a step that is longer than two intervals is waited for, up to a bound") {
  Ledger ledger(WithIdle(0));
  std::vector<RequestEnergy> complete;
  ledger.BeginRequest(1, "a", "dense", 0);
  ledger.AddInterval(Interval(0, 100, 10), 1);
  ledger.Settle(900 * kMs, &complete);
  CHECK(UsesOf(ledger).sum() == 0);
  ledger.AddSpan(Span(1, 0, 1000));
  ledger.Settle(1000 * kMs, &complete);
  CHECK(UsesOf(ledger).request == Approx(10));
  ledger.AddInterval(Interval(1000, 1100, 10), 1);
  ledger.Settle(4099 * kMs, &complete);
  CHECK(UsesOf(ledger).sum() == Approx(10));
  ledger.Settle(4100 * kMs, &complete);
  CHECK(UsesOf(ledger).overhead == Approx(10));
}

TEST_CASE("an estimate has what is settled, what is not, and the time since by its work or the last power") {
  Ledger ledger(WithIdle(20));
  std::vector<RequestEnergy> complete;
  ledger.BeginRequest(1, "a", "dense", 0);
  CHECK(ledger.Estimate(1, 10 * kMs).devices.empty());
  CHECK(ledger.Estimate(7, 10 * kMs).devices.empty());
  ledger.AddSpan(Span(1, 0, 100));
  ledger.AddInterval(Interval(0, 100, 10), 1);
  ledger.Settle(100 * kMs, &complete);
  ledger.AddInterval(Interval(100, 200, 10), 1);
  WorkSpan second = Span(1, 100, 230);
  second.work_ns *= 1.3;
  ledger.AddSpan(second);
  const RequestEnergy energy = ledger.Estimate(1, 250 * kMs);
  REQUIRE(energy.devices.size() == 1);
  CHECK(energy.joules() == Approx(25));
  CHECK(energy.devices[0].steps[StepIndex(EnergyStep::kDecode)] == Approx(20));
  CHECK(energy.devices[0].steps[StepIndex(EnergyStep::kIdle)] == Approx(5));
  REQUIRE(ledger.Running(250 * kMs).size() == 1);
  CHECK(ledger.Running(250 * kMs)[0].joules() == Approx(25));
  // A meter that is silent for long has no power that could be assumed.
  CHECK(ledger.Estimate(1, 5000 * kMs).joules() == Approx(20));
}

TEST_CASE("work since the last reading is estimated by what work has cost") {
  // A device of 20 W whose work of half the time takes 60 W more, 10 W of another program beside it.
  Ledger ledger(WithIdle(20));
  std::vector<RequestEnergy> complete;
  const auto work = [](uint64_t request, int64_t begin, int64_t end) {
    WorkSpan span = Span(request, begin, end);
    span.work_ns = static_cast<double>(span.end_ns - span.begin_ns) / 2;
    return span;
  };
  ledger.BeginRequest(1, "a", "dense", 0);
  for (int at = 0; at < 1000; at += 100) {
    ledger.AddSpan(work(1, at, at + 100));
    ledger.AddInterval(Interval(at, at + 100, 9), 6.0 / 7);
    ledger.Settle((at + 100) * kMs, &complete);
  }
  ledger.EndRequest(1, 1, 1000 * kMs);
  // Another one begins after an interval with 30 W: its power tells nothing of the work since.
  ledger.AddInterval(Interval(1000, 1100, 3), 0);
  ledger.BeginRequest(2, "b", "dense", 1100 * kMs);
  CHECK(ledger.Estimate(2, 1140 * kMs).joules() == Approx(0.04 * 20));
  ledger.AddSpan(work(2, 1100, 1150));
  const RequestEnergy energy = ledger.Estimate(2, 1150 * kMs);
  REQUIRE(energy.devices.size() == 1);
  CHECK(energy.devices[0].steps[StepIndex(EnergyStep::kDecode)] == Approx(0.05 * 60));
  CHECK(energy.devices[0].steps[StepIndex(EnergyStep::kIdle)] == Approx(0.05 * 20));
  // The meter reads the same in the end.
  ledger.AddInterval(Interval(1100, 1150, 4.5), 6.0 / 7);
  CHECK(ledger.Estimate(2, 1150 * kMs).joules() == Approx(energy.joules()));
}

TEST_CASE("a model of work adds the energy of bytes and multiply-adds to that of time") {
  // 5 W without work; 2 nJ a byte, 1 nJ a multiply-add: 1e9 and 3e9 of them in 200 ms are 5 J.
  Ledger ledger(WithIdle(5));
  std::vector<RequestEnergy> complete;
  ledger.BeginRequest(1, "a", "dense", 0);
  WorkSpan span = Span(1, 0, 200);
  span.bytes = 1e9;
  span.operations = 3e9;
  ledger.AddSpan(span);
  energy::EnergyInterval interval = Interval(0, 100, 0.5);
  interval.work = {2e-9, 1e-9};
  ledger.AddInterval(interval, 0.25);
  // The interval, and the time since, whose work is known.
  CHECK(ledger.Estimate(1, 200 * kMs).joules() == Approx(5 + 1));
  ledger.Settle(100 * kMs, &complete);
  CHECK(UsesOf(ledger).request == Approx(2.5 + 0.5));
  CHECK(UsesOf(ledger).sum() == Approx(3));
  CHECK(ledger.Devices().at(0).work_watts == Approx(25));
  CHECK(ledger.Estimate(1, 200 * kMs).devices.at(0).steps[StepIndex(EnergyStep::kDecode)] == Approx(5));
  ledger.EndRequest(1, 1, 200 * kMs);
  for (const int begin : {100, 200}) {
    interval.begin_ns = begin * kMs;
    interval.end_ns = (begin + 100) * kMs;
    ledger.AddInterval(interval, 1);
  }
  ledger.Settle(1300 * kMs, &complete);
  REQUIRE(complete.size() == 1);
  CHECK(complete[0].joules() == Approx(5 + 1));
  CHECK(UsesOf(ledger).idle == Approx(0.5));
  CHECK(ledger.Devices().at(0).work_watts == 0);
}

TEST_CASE("devices have one order, whichever meter answers first") {
  Ledger ledger(WithIdle(0));
  ledger.BeginRequest(1, "a", "dense", 0);
  for (const auto& [kind, index] :
       {std::pair(DeviceKind::kDram, 0), {DeviceKind::kCpu, 1}, {DeviceKind::kCpu, 0}}) {
    ledger.AddInterval({{kind, index, "rapl"}, 0, 100 * kMs, 1}, 1);
  }
  const auto labels = [](const auto& list) {
    std::vector<std::string> found;
    for (const auto& entry : list) found.push_back(entry.device.Label());
    return found;
  };
  const std::vector<std::string> wanted = {"cpu0", "cpu1", "dram0"};
  CHECK(labels(ledger.Devices()) == wanted);
  CHECK(labels(ledger.Estimate(1, 100 * kMs).devices) == wanted);
  CHECK(labels(ledger.Running(100 * kMs).front().devices) == wanted);
}

TEST_CASE("an ended request is complete once, and is forgotten later") {
  Ledger ledger(WithIdle(0));
  std::vector<RequestEnergy> complete;
  ledger.BeginRequest(1, "a", "dense", 0);
  ledger.AddSpan(Span(1, 0, 50));
  ledger.AddInterval(Interval(0, 100, 4), 1);
  ledger.EndRequest(1, 7, 50 * kMs);
  ledger.Settle(100 * kMs, &complete);
  CHECK(complete.empty());
  ledger.Settle(1050 * kMs, &complete);
  ledger.Settle(1150 * kMs, &complete);
  REQUIRE(complete.size() == 1);
  CHECK(complete[0].joules() == Approx(4));
  CHECK(complete[0].output_tokens == 7);
  CHECK_FALSE(ledger.Estimate(1, 1200 * kMs).devices.empty());
  ledger.Settle(6000 * kMs, &complete);
  CHECK(ledger.Estimate(1, 6000 * kMs).devices.empty());
}

TEST_CASE("spans and requests beyond the bounds are dropped and counted") {
  LedgerOptions options = WithIdle(0);
  options.max_spans = 2;
  options.max_requests = 1;
  Ledger ledger(options);
  ledger.BeginRequest(1, "a", "dense", 0);
  ledger.BeginRequest(2, "b", "dense", 0);
  for (int i = 0; i < 3; ++i) ledger.AddSpan(Span(1, 10 * i, 10 * i + 10));
  CHECK(ledger.dropped_spans() == 1);
  CHECK(ledger.Running(0).size() == 1);
  ledger.AddSpan(Span(1, 30, 30));           // empty
  ledger.AddSpan(Span(1, 40, 40 + 61'000));  // longer than any step
  CHECK(ledger.dropped_spans() == 1);
}

TEST_CASE("idle power is the 5th percentile of seconds without requests") {
  Ledger ledger({});
  std::vector<RequestEnergy> complete;
  int64_t at = 0;
  // Watts 100, 99 .. 61: the second lowest of forty is the 5th percentile.
  for (int second = 0; second < 40; ++second) {
    for (int i = 0; i < 10; ++i, at += 100) {
      ledger.AddInterval(Interval(at, at + 100, (100 - second) * 0.1), 1);
      ledger.Settle((at + 100) * kMs, &complete);
    }
    if (second == 1) CHECK(ledger.Devices().at(0).idle_watts == 0);
    if (second == 2) CHECK(ledger.Devices().at(0).idle_watts == Approx(98));
  }
  CHECK(ledger.Devices().at(0).idle_watts == Approx(62));
  CHECK(ledger.Devices().at(0).idle_origin == IdleWatts::Origin::kMeasured);
  // Seconds with a request do not count.
  ledger.BeginRequest(1, "a", "dense", at * kMs);
  for (int i = 0; i < 30; ++i, at += 100) ledger.AddInterval(Interval(at, at + 100, 0.1), 1);
  ledger.Settle((at + 10'000) * kMs, &complete);
  CHECK(ledger.Devices().at(0).idle_watts == Approx(62));
}

TEST_CASE("energy is conserved over random schedules") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto draw = [&](int64_t least, int64_t most) {
    return std::uniform_int_distribution(least, most)(random);
  };
  for (int schedule = 0; schedule < 1000; ++schedule) {
    LedgerOptions options;
    if (draw(0, 1) == 0) options = WithIdle(static_cast<double>(draw(0, 100)));
    options.idle_share = draw(0, 3) == 0 ? IdleShare::kNone : IdleShare::kBusy;
    Ledger ledger(options);
    std::map<std::string, double> metered;
    std::map<std::string, int64_t> read_until;
    std::vector<RequestEnergy> complete;
    uint64_t next_id = 1;
    int64_t now = 0;
    for (int turn = 0; turn < 40; ++turn) {
      now += draw(1, 150) * kMs + draw(0, 999);
      switch (draw(0, 3)) {
        case 0:
          ledger.BeginRequest(next_id, "r", draw(0, 1) == 0 ? "dense" : "sparse", now);
          ++next_id;
          break;
        case 1:
          ledger.EndRequest(static_cast<uint64_t>(draw(1, 20)), 3, now);
          break;
        default: {
          // Spans may be late, of requests that ended, and of work on another device.
          const int64_t begin = std::max<int64_t>(0, now - draw(0, 500) * kMs);
          const int64_t end = begin + draw(1, 200 * kMs);
          ledger.AddSpan({static_cast<uint64_t>(draw(1, 20)),
                          static_cast<EnergyStep>(draw(1, 6)),
                          {draw(0, 3) == 0 ? DeviceKind::kGpu : DeviceKind::kCpu, 0},
                          begin,
                          end,
                          static_cast<double>(draw(1, end - begin))});
        }
      }
      for (const energy::MeteredDevice& device : {energy::MeteredDevice{DeviceKind::kCpu, 0, "rapl"},
                                                  energy::MeteredDevice{DeviceKind::kDram, 0, "rapl"},
                                                  energy::MeteredDevice{DeviceKind::kGpu, 0, "nvml"}}) {
        if (draw(0, 4) == 0) continue;  // a reading that was dropped, or comes later
        int64_t& until = read_until[device.Label()];
        const double joules = static_cast<double>(draw(0, 100'000)) * 1e-3;
        ledger.AddInterval({device, until, now, joules}, static_cast<double>(draw(0, 100)) * 0.01);
        metered[device.Label()] += joules;
        until = now;
      }
      ledger.Settle(now, &complete);
    }
    now += 10'000 * kMs;
    ledger.Settle(now, &complete);
    std::map<std::string, double> steps;
    for (const StepAccount& account : ledger.Steps()) {
      for (const double joules : account.steps) {
        REQUIRE(joules >= 0);
        steps[account.device.Label()] += joules;
      }
    }
    for (const DeviceAccount& account : ledger.Devices()) {
      const double scale = std::max(1.0, metered[account.device.Label()]);
      REQUIRE(std::abs(account.uses.sum() - metered[account.device.Label()]) <= 1e-9 * scale);
      REQUIRE(std::abs(account.uses.request - steps[account.device.Label()]) <= 1e-9 * scale);
      REQUIRE(std::min({account.uses.request, account.uses.overhead, account.uses.idle,
                        account.uses.other}) >= -1e-9 * scale);
    }
  }
}

}  // namespace mnemo::attribution
