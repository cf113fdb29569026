// The command processor: rings, jobs, results, completions.

#include <catch2/catch.hpp>
#include <cstdlib>

#include "command_rig.h"
#include "proto/layout/card.h"

namespace mnemo::rtl {
namespace {

int Cases(int few) {
  const char* text = std::getenv("MNEMO_RTL_CASES");
  return text != nullptr ? std::atoi(text) : few;
}

// Random pressure of one run.
void Shake(CommandRig& rig) {
  static constexpr int kPercents[] = {15, 50, 100};
  rig.answer_percent = kPercents[rig.random()() % 3];
  rig.memory().ready_percent = kPercents[rig.random()() % 3];
  rig.memory().latency = rig.random()() % 2 != 0 ? 250 : 3;
  rig.scan_cycles = rig.random()() % 2 != 0 ? 600 : 20;
}

void Start(CommandRig& rig) {
  rig.Write(layout::kCardRegPeriod, CommandRig::kPeriod);
  rig.Write(layout::kCardRegControl, layout::kCardControlRun);
}

TEST_CASE("descriptors of one ring across the wrap of its indices") {
  CommandRig rig(1);
  Start(rig);
  rig.Open(0, 8, 0xFFFFFFF5, false);
  int left = Cases(120);
  while (left > 0) {
    Shake(rig);
    int batch = static_cast<int>(1 + rig.random()() % 8);
    for (; batch > 0 && left > 0 && rig.HasRoom(0); --batch, --left) {
      rig.Submit(0, rig.Make(0, rig.random()() % 4 == 0));
    }
    rig.Ring(0);
    if (rig.random()() % 2 != 0) {
      REQUIRE(rig.Drain());
    } else {
      rig.Run(static_cast<int>(rig.random()() % 3000));
    }
  }
  REQUIRE(rig.Drain());
  CHECK(rig.memory().violations() == 0);
  CHECK(rig.refused() > 0);
}

TEST_CASE("result blocks of each small k, with and without ranks") {
  CommandRig rig(2);
  Start(rig);
  rig.Open(0, 8, 0, true);
  rig.exact_k = true;
  rig.scan_cycles = 10;
  rig.answer_percent = 90;
  for (uint32_t k = 1; k <= 34; ++k) {
    for (const int flags : {0, int{layout::kFlagRanks}}) {
      rig.memory().latency = static_cast<int>(rig.random()() % 60);
      while (!rig.HasRoom(0)) rig.Cycle();
      rig.Submit(0, rig.Make(0, false, k, flags));
      rig.Ring(0);
    }
  }
  REQUIRE(rig.Drain());
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("no queue waits for more than one descriptor of each other") {
  CommandRig rig(3);
  for (uint32_t q = 0; q < 8; ++q) {
    rig.Open(q, 4, static_cast<uint32_t>(rig.random()()), q % 2 != 0);
    for (int n = 0; n < 4; ++n) rig.Submit(q, rig.Make(q, n % 2 != 0));
    rig.Ring(q);
  }
  rig.Run(2000);  // all heads are known, polled ones too
  rig.scan_cycles = 30;
  Start(rig);
  REQUIRE(rig.Drain(800000));
  const std::vector<uint32_t>& order = rig.taken_order();
  REQUIRE(order.size() == 32);
  for (uint32_t q = 0; q < 8; ++q) {
    size_t last = 0;
    int seen = 0;
    for (size_t n = 0; n < order.size(); ++n) {
      if (order[n] != q) continue;
      INFO("queue " << q << " at " << n);
      CHECK(n - last <= 8);
      last = n;
      ++seen;
    }
    CHECK(seen == 4);
  }
  CHECK(rig.memory().violations() == 0);
}

}  // namespace
}  // namespace mnemo::rtl
