// The checkers stream_if and axi_if: silent for what the rules allow, and each rule fails where it is broken.

#include <catch2/catch.hpp>
#include <functional>

#include "bench.h"

namespace mnemo::rtl_base {
namespace {

struct Rule {
  const char* name;
  bool broken;
  std::function<void(Bench&)> act;
};

void Address(Bench& bench, uint64_t address, int beats) {
  Vbase_bench& p = bench.pins();
  p.a_valid = p.a_ready = 1;
  p.a_addr = address;
  p.a_len = static_cast<uint8_t>(beats - 1);
  bench.Clock();
  p.a_valid = 0;
}

void Data(Bench& bench, bool last) {
  Vbase_bench& p = bench.pins();
  p.d_valid = p.d_ready = 1;
  p.d_last = last;
  bench.Clock();
  p.d_valid = 0;
}

// One clock of the write port.
void Write(Bench& bench, bool address, bool data, bool last, bool response) {
  Vbase_bench& p = bench.pins();
  p.w_a_valid = address;
  p.w_d_valid = data;
  p.d_last = last;
  p.w_b_valid = response;
  bench.Clock();
  p.w_a_valid = p.w_d_valid = p.w_b_valid = 0;
}

// Two clocks of the stream.
void Stalled(Bench& bench, bool ready, bool valid_then, uint8_t data_then) {
  Vbase_bench& p = bench.pins();
  p.s_valid = 1;
  p.s_data = 5;
  p.s_ready = ready;
  bench.Clock();
  p.s_valid = valid_then;
  p.s_data = data_then;
  bench.Clock();
}

const Rule kRules[] = {
    {"a payload is held", false, [](Bench& b) { Stalled(b, false, true, 5); }},
    {"a taken payload may change", false, [](Bench& b) { Stalled(b, true, false, 6); }},
    {"a payload is withdrawn", true, [](Bench& b) { Stalled(b, false, false, 5); }},
    {"a payload changes", true, [](Bench& b) { Stalled(b, false, true, 6); }},
    {"a burst to the end of 4 KiB", false, [](Bench& b) { Address(b, 0x1000 + 4096 - 128, 2); }},
    {"a burst of 64 beats", false, [](Bench& b) { Address(b, 0x1000, 64); }},
    {"a burst across 4 KiB", true, [](Bench& b) { Address(b, 0x1000 + 4096 - 128, 3); }},
    {"a burst of 65 beats", true, [](Bench& b) { Address(b, 0x1000, 65); }},
    {"a burst within a beat", true, [](Bench& b) { Address(b, 0x1020, 1); }},
    {"an address changes", true,
     [](Bench& b) {
       b.pins().a_valid = 1;
       b.pins().a_ready = 0;
       b.pins().a_addr = b.pins().a_len = 0;
       b.Clock();
       Address(b, 64, 1);
     }},
    {"bursts in order", false,
     [](Bench& b) {
       Address(b, 0, 2);
       Address(b, 64, 1);
       Data(b, false);
       Data(b, true);
       Data(b, true);
     }},
    {"last comes early", true,
     [](Bench& b) {
       Address(b, 0, 2);
       Data(b, true);
     }},
    {"last is missing", true,
     [](Bench& b) {
       Address(b, 0, 1);
       Data(b, false);
     }},
    {"data without a burst", true, [](Bench& b) { Data(b, true); }},
    {"four open bursts", false,
     [](Bench& b) {
       for (int i = 0; i < 4; ++i) Address(b, 0, 1);
     }},
    {"five open bursts", true,
     [](Bench& b) {
       for (int i = 0; i < 5; ++i) Address(b, 0, 1);
     }},
    {"a write", false,
     [](Bench& b) {
       Write(b, true, false, false, false);
       Write(b, false, true, false, false);
       Write(b, false, true, true, false);
       Write(b, false, false, false, true);
     }},
    {"write data beside its address", false,
     [](Bench& b) {
       Write(b, true, true, false, false);
       Write(b, true, true, true, false);
       Write(b, false, true, false, true);
       Write(b, false, true, true, false);
       Write(b, false, false, false, true);
     }},
    {"write data before its address", true, [](Bench& b) { Write(b, false, true, false, false); }},
    {"a response before the data", true,
     [](Bench& b) {
       Write(b, true, true, false, false);
       Write(b, false, false, false, true);
     }},
    {"a second response", true,
     [](Bench& b) {
       Write(b, true, true, false, false);
       Write(b, false, true, true, false);
       Write(b, false, false, false, true);
       Write(b, false, false, false, true);
     }},
};

TEST_CASE("Checkers tell broken rules from kept ones") {
  for (const Rule& rule : kRules) {
    INFO(rule.name);
    Bench bench(51);
    rule.act(bench);
    bench.Clock();
    CHECK((bench.failures() > 0) == rule.broken);
  }
}

TEST_CASE("Checks begin with the first reset and pause in a reset") {
  Bench bench(52);
  CHECK(bench.failures() == 0);  // its pins were random before the reset
  bench.pins().s_valid = 1;
  bench.pins().s_ready = 0;
  bench.Clock();
  bench.Reset();
  bench.Clock();
  CHECK(bench.failures() == 0);
}

}  // namespace
}  // namespace mnemo::rtl_base
