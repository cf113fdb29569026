// Queues, RAMs, arbiter and counter against their definitions, with random back-pressure on each stream.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <deque>
#include <optional>
#include <random>

#include "bench.h"
#include "fpga/tests/testing/cases.h"

namespace mnemo::rtl_base {
namespace {

using rtl_tests::Cases;

using Payload = std::array<uint32_t, 4>;

// The beats that one of the four streams was given, and those that it still owes.
struct Stream {
  int in_percent = 0;
  int out_percent = 0;
  bool offered = false;
  Payload offer = {};
  std::deque<Payload> held;
  int passed = 0;
};

class Streams {
 public:
  explicit Streams(int seed) : bench_(seed), rng_(seed) {}

  int Percent() {
    constexpr int kChoices[] = {0, 5, 50, 95, 100, 100};
    return kChoices[rng_() % 6];
  }

  // One clock: a payload stays offered until it is taken.
  void Step() {
    Vbase_bench& p = bench_.pins();
    uint32_t valid = 0;
    uint32_t ready = 0;
    for (int i = 0; i < 4; ++i) {
      Stream& stream = streams[i];
      if (!stream.offered && static_cast<int>(rng_() % 100) < stream.in_percent) {
        stream.offered = true;
        for (uint32_t& word : stream.offer) word = rng_();
      }
      valid |= static_cast<uint32_t>(stream.offered) << i;
      ready |= static_cast<uint32_t>(static_cast<int>(rng_() % 100) < stream.out_percent) << i;
      for (int word = 0; word < 4; ++word) p.in_data[i][word] = stream.offer[word];
    }
    p.in_valid = valid;
    p.out_ready = ready;
    p.clk = 0;
    bench_.Settle();
    for (int i = 0; i < 4; ++i) Take(i, ready >> i & 1);
    bench_.Clock();
    REQUIRE(p.level == streams[0].held.size());
    REQUIRE(p.small_level == streams[1].held.size());
    REQUIRE(p.late_level == streams[3].held.size());
  }

  Bench& bench() { return bench_; }
  std::array<Stream, 4> streams;

 private:
  void Take(int i, bool ready) {
    Vbase_bench& p = bench_.pins();
    Stream& stream = streams[i];
    if ((p.out_valid >> i & 1) && ready) {
      REQUIRE(!stream.held.empty());
      for (int word = 0; word < 4; ++word) REQUIRE(p.out_data[i][word] == stream.held.front()[word]);
      stream.held.pop_front();
      ++stream.passed;
    }
    if (stream.offered && (p.in_ready >> i & 1)) {
      stream.held.push_back(stream.offer);
      stream.offered = false;
    }
  }

  Bench bench_;
  std::mt19937 rng_;
};

TEST_CASE("Streams lose nothing and keep their order under back-pressure") {
  Streams run(11);
  for (int round = 0; round < Cases(600); ++round) {
    for (Stream& stream : run.streams) {
      stream.in_percent = run.Percent();
      stream.out_percent = run.Percent();
    }
    for (int i = 0; i < 100; ++i) run.Step();
  }
  for (const Stream& stream : run.streams) CHECK(stream.passed > 0);
  CHECK(run.bench().failures() == 0);
}

TEST_CASE("A queue fills to its depth, a skid register to two") {
  Streams run(12);
  for (Stream& stream : run.streams) stream.in_percent = 100;
  for (int i = 0; i < 40; ++i) run.Step();
  CHECK(run.streams[0].held.size() == 16);
  CHECK(run.streams[1].held.size() == 2);
  CHECK(run.streams[2].held.size() == 2);
  CHECK(run.streams[3].held.size() == 8);
  CHECK(run.bench().pins().in_ready == 0);
}

TEST_CASE("Streams pass one payload a cycle, also behind a full queue") {
  Streams run(13);
  for (Stream& stream : run.streams) stream.in_percent = 100;
  for (int i = 0; i < 40; ++i) run.Step();
  for (Stream& stream : run.streams) stream.out_percent = 100;
  for (int i = 0; i < 1000; ++i) run.Step();
  CHECK(run.streams[0].passed == 1000);
  CHECK(run.streams[1].passed == 1000);
  CHECK(run.streams[2].passed == 1000);
  CHECK(run.streams[3].passed == 1000);
}

TEST_CASE("An empty stream passes a payload after one cycle, a late queue after two") {
  Streams run(14);
  run.Step();  // in_ready follows the reset
  for (Stream& stream : run.streams) stream.in_percent = 100;
  run.Step();
  CHECK(run.bench().pins().out_valid == 7);
  run.Step();
  CHECK(run.bench().pins().out_valid == 15);
}

TEST_CASE("A reset empties the streams") {
  Streams run(15);
  for (Stream& stream : run.streams) stream.in_percent = 100;
  for (int i = 0; i < 40; ++i) run.Step();
  run.bench().Reset();
  CHECK(run.bench().pins().out_valid == 0);
  CHECK(run.bench().pins().level == 0);
  for (Stream& stream : run.streams) stream = Stream{.in_percent = 50, .out_percent = 50};
  for (int i = 0; i < 1000; ++i) run.Step();
  CHECK(run.streams[0].passed > 100);
}

TEST_CASE("RAMs give what was written, at their latency") {
  Bench bench(21);
  std::mt19937 rng(21);
  Vbase_bench& p = bench.pins();
  std::array<std::optional<uint32_t>, 64> whole;  // written by word, if we[0] is set
  std::array<std::array<std::optional<uint8_t>, 4>, 64> bytes;
  std::optional<uint32_t> block;
  std::optional<uint32_t> first;  // of the port that writes
  std::array<std::optional<uint8_t>, 4> ultra_word;
  std::array<std::optional<uint8_t>, 4> ultra;
  for (int i = 0; i < Cases(20000); ++i) {
    p.we = rng() % 3 == 0 ? rng() % 16 : 0;
    p.re = rng() % 4 != 0;
    p.waddr = rng() % 64;
    p.raddr = rng() % 3 == 0 ? p.waddr : rng() % 64;
    p.wdata = rng();
    p.clk = 0;
    bench.Settle();
    if (whole[p.raddr]) REQUIRE(p.lut_data == *whole[p.raddr]);
    ultra = ultra_word;
    if (p.re) {
      block = whole[p.raddr];
      ultra_word = bytes[p.raddr];
    }
    if ((p.we & 1) || p.re) first = whole[(p.we & 1) ? p.waddr : p.raddr];
    if (p.we & 1) whole[p.waddr] = p.wdata;
    for (int byte = 0; byte < 4; ++byte) {
      if (p.we >> byte & 1) bytes[p.waddr][byte] = static_cast<uint8_t>(p.wdata >> (8 * byte));
    }
    bench.Clock();
    if (block) REQUIRE(p.block_data == *block);
    if (block) REQUIRE(p.second_data == *block);
    if (first) REQUIRE(p.first_data == *first);
    for (int byte = 0; byte < 4; ++byte) {
      if (ultra[byte]) REQUIRE((p.ultra_data >> (8 * byte) & 255) == *ultra[byte]);
    }
  }
}

TEST_CASE("The arbiter grants one that wants, and nobody waits for more than N - 1 others") {
  Bench bench(31);
  std::mt19937 rng(31);
  Vbase_bench& p = bench.pins();
  std::array<int, 5> waits = {};
  std::array<int, 5> granted = {};
  int longest = 0;
  for (int i = 0; i < Cases(20000); ++i) {
    const int style = i / 1000 % 3;
    p.want = style == 0 ? 31 : style == 1 ? rng() % 32 : (p.want & ~p.grant) | rng() % 32;
    p.take = rng() % 4 != 0;
    p.clk = 0;
    bench.Settle();
    REQUIRE(p.any == (p.want != 0));
    REQUIRE((p.grant & ~p.want) == 0);
    REQUIRE((p.grant & (p.grant - 1)) == 0);
    REQUIRE((p.grant != 0) == (p.want != 0));
    for (int n = 0; n < 5; ++n) {
      const bool mine = p.grant >> n & 1;
      if (p.take && mine) ++granted[n];
      if (!(p.want >> n & 1) || (p.take && mine)) {
        waits[n] = 0;
      } else if (p.take) {
        longest = std::max(longest, ++waits[n]);
      }
    }
    bench.Clock();
  }
  CHECK(longest == 4);
  for (int count : granted) CHECK(count > 500);
}

TEST_CASE("The counter counts cycles with the event, past both halves") {
  Bench bench(41);
  std::mt19937 rng(41);
  Vbase_bench& p = bench.pins();
  uint32_t events = 0;
  std::array<uint32_t, 2> before = {};
  for (int i = 0; i < 2000; ++i) {
    p.event_valid = rng() % 3 != 0;
    before[1] = before[0];
    before[0] = events;
    events += p.event_valid;
    bench.Clock();
    REQUIRE(p.count == (before[0] & 255));
  }
  CHECK(events > 512);
}

}  // namespace
}  // namespace mnemo::rtl_base
