// The command processor: rings, jobs, results, completions.

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "command_rig.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"

namespace mnemo::rtl_command {
namespace {

using rtl_tests::Cases;

// Where the registers of a queue begin.
uint32_t QueueBase(uint32_t number) {
  return uint32_t{layout::kCardRegQueues} + number * uint32_t{layout::kCardQueueBytes};
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
  // More follow until there is a long scan with a first stage and one of bounds.
  const int least = Cases(120);
  int made = 0;
  const auto wanted = [&] {
    const bool has_all = rig.long_cascades() > 0 && rig.long_bounds() > 0;
    return made < least || (!has_all && made < 20 * least);
  };
  while (wanted()) {
    Shake(rig);
    int batch = static_cast<int>(1 + rig.random()() % 8);
    for (; batch > 0 && wanted() && rig.HasRoom(0); --batch, ++made) {
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
  CHECK(rig.long_scans() > 0);
  CHECK(rig.long_cascades() > 0);
  CHECK(rig.long_bounds() > 0);
}

TEST_CASE("refused descriptors wait behind a long scan") {
  CommandRig rig(11);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.Open(1, 8, 0, false);
  rig.scan_cycles = 8000;
  layout::Descriptor scan = rig.Make(0, false);
  while (scan.select_op != layout::kSelectTopK || scan.begin == scan.end) scan = rig.Make(0, false);
  rig.Submit(0, scan);
  rig.Ring(0);
  rig.Run(3000);
  // More than there are contexts of descriptors under way.
  for (uint32_t n = 0; n < 15; ++n) {
    layout::Descriptor refused = rig.Make((n + 1) % 2, false);
    refused.select_op = 0xEE;
    rig.Submit((n + 1) % 2, refused);
  }
  rig.Ring(0);
  rig.Ring(1);
  REQUIRE(rig.Drain());
  CHECK(rig.refused() == 15);
  CHECK(rig.memory().violations() == 0);
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

// Fills queue 0 with good descriptors whose jobs never end.
void Block(CommandRig& rig) {
  rig.scans_end = false;
  while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  rig.Run(6000);
}

uint32_t State(CommandRig& rig) { return rig.Read(layout::kCardRegState); }

// Resets the card; it works again afterwards, and its registers are 0.
void ResetAndServe(CommandRig& rig) {
  rig.Write(layout::kCardRegControl, layout::kCardControlReset);
  rig.top().fault = 0;
  int reads = 0;
  while ((rig.Read(layout::kCardRegControl) & layout::kCardControlReset) != 0) REQUIRE(++reads < 1000);
  CHECK(!rig.memory().open());
  rig.Forget();
  for (const layout::CardRegister offset :
       {layout::kCardRegInterruptGlobal, layout::kCardRegInterruptEnable, layout::kCardRegInterruptStatus,
        layout::kCardRegControl, layout::kCardRegFailure, layout::kCardRegWatchdog, layout::kCardRegPeriod,
        layout::kCardRegChannels, layout::kCardRegQueues}) {
    CHECK(rig.Read(offset) == 0);
  }
  CHECK(rig.Read(QueueBase(0) + layout::kCardQueueRing) == 0);
  CHECK(State(rig) == layout::kCardStateIdle);
  rig.memory().answers = true;
  rig.scans_end = true;
  Start(rig);
  rig.Open(0, 8, static_cast<uint32_t>(rig.random()()), false);
  for (int n = 0; n < 8; ++n) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  REQUIRE(rig.Drain());
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("registers") {
  CommandRig rig(4);
  CHECK(rig.Read(layout::kCardRegMagic) == layout::kCardMagic);
  CHECK(rig.Read(layout::kCardRegVersion) == (layout::kCardMajor << 16 | layout::kCardMinor));
  CHECK(rig.ReadPair(layout::kCardRegCardHash) == layout::kCardHash);
  CHECK(rig.ReadPair(layout::kCardRegLayoutHash) == layout::kLayoutHash);
  CHECK(rig.Read(layout::kCardRegShape) == (kChannels | kPassQueries << 8 | 16U << 16));
  CHECK(rig.Read(layout::kCardRegBankWords) == kBankWords);
  CHECK(rig.Read(layout::kCardRegScoreOps) == 0x011E0F1E);
  CHECK(rig.Read(layout::kCardRegFormats) == 0x3E);
  CHECK(rig.Read(layout::kCardRegDims) == 0x1F0);
  CHECK(rig.Read(layout::kCardRegMaxGroup) == (64U | 16384U << 16));
  CHECK(State(rig) == layout::kCardStateIdle);
  // Nothing lies behind the channels and beyond the registers.
  for (const uint32_t offset : {0U, 0x54U, 0x58U, 0x100U + 8 * kChannels, 0x3F8U, 0x460U, 0xFFCU, 0x1010U}) {
    rig.Write(offset, 0x12345678);
    CHECK(rig.Read(offset) == 0);
  }
  rig.Write(layout::kCardRegMagic, 0);
  CHECK(rig.Read(layout::kCardRegMagic) == layout::kCardMagic);
  for (uint32_t word = 0; word < 2 * kChannels; ++word) {
    rig.Write(layout::kCardRegChannels + 4 * word, 0xABC00000 + word);
  }
  for (uint32_t word = 0; word < 2 * kChannels; ++word) {
    CHECK(rig.Read(layout::kCardRegChannels + 4 * word) == 0xABC00000 + word);
  }
  CHECK(rig.top().base_beat0 == 0xABC00000);
  CHECK(rig.top().base_beat1 == 0xABC00002);
  CHECK(rig.top().length_beats == (0xABC00001 | uint64_t{0xABC00003} << 32));
  // A write of a part of a register does not count.
  rig.Write(layout::kCardRegWatchdog, 0x1234);
  for (uint8_t strobes = 0; strobes < 15; ++strobes) {
    rig.Write(layout::kCardRegWatchdog, 0xFFFFFFFF, strobes);
    CHECK(rig.Read(layout::kCardRegWatchdog) == 0x1234);
  }
  // Queue registers keep what the card uses, and nothing but the head changes while a queue is enabled.
  const uint32_t queue = QueueBase(7);
  rig.Write(queue + layout::kCardQueueRing, 0xFFFFFFFF);
  CHECK(rig.Read(queue + layout::kCardQueueRing) == 0xFFFFFFC0);
  rig.Write(queue + layout::kCardQueueMaxK, 0xFFFFFFFF);
  CHECK(rig.Read(queue + layout::kCardQueueMaxK) == 0x00FFFFFF);
  rig.Open(7, 4, 9, false);
  rig.Write(queue + layout::kCardQueueSlots, 77);
  CHECK(rig.Read(queue + layout::kCardQueueSlots) == 4);
  CHECK(rig.Read(queue + layout::kCardQueueEnable) == 1);
}

TEST_CASE("a write waits for the answer to the one before it") {
  CommandRig rig(8);
  CHECK(State(rig) == layout::kCardStateIdle);  // the reset has ended
  Vcommand_bench& pins = rig.top();
  pins.s_awaddr = layout::kCardRegWatchdog;
  pins.s_wstrb = 15;
  pins.s_wdata = 5;
  pins.s_awvalid = pins.s_wvalid = 1;
  pins.s_bready = 0;
  int accepted = 0;
  const auto step = [&](bool answer) {
    pins.s_bready = answer;
    pins.clk = 0;
    pins.eval();
    REQUIRE(pins.s_awready == pins.s_wready);
    const bool now = pins.s_awready != 0;
    rig.Cycle();
    if (!now) return;
    ++accepted;
    pins.s_wdata = 6;
    if (accepted == 2) pins.s_awvalid = pins.s_wvalid = 0;
  };
  for (int cycle = 0; cycle < 20; ++cycle) step(false);
  CHECK(accepted == 1);
  CHECK(pins.s_bvalid == 1);
  for (int cycle = 0; cycle < 20; ++cycle) step(true);
  CHECK(accepted == 2);
  CHECK(rig.Read(layout::kCardRegWatchdog) == 6);
}

TEST_CASE("queries of more than a page of host memory") {
  CommandRig rig(9);
  Start(rig);
  rig.Open(0, 8, 0, false);
  TestQueue& queue = rig.queue(0);
  int submitted = 0;
  for (int tries = 0; tries < 3000 && submitted < 8; ++tries) {
    // The payload begins with a page of 4 KiB, so that its first burst has 64 beats.
    queue.region_next[0] =
        static_cast<uint32_t>(64 - queue.regions[0] / 64 % 64) % 64 + 1024 * static_cast<uint32_t>(tries % 8);
    const layout::Descriptor d = rig.Make(0, false);
    const uint16_t dim = queue.table[d.index_id].entry.dim;
    if (d.select_op == layout::kSelectLatest || layout::QueryBlockBytes(d.group, dim) < 4096) continue;
    rig.Submit(0, d);
    rig.Ring(0);
    REQUIRE(rig.Drain());
    ++submitted;
  }
  CHECK(submitted == 8);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("as many results wait for host memory as the port holds, and no more") {
  CommandRig rig(90);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.exact_k = true;
  rig.answer_percent = rig.memory().ready_percent = 100;
  rig.memory().latency = 4000;
  layout::Descriptor d = rig.Make(0, false, 1200, 0);
  while (d.select_op == layout::kSelectLatest || d.k1 != 0) d = rig.Make(0, false, 1200, 0);
  rig.Submit(0, d);
  rig.Ring(0);
  size_t most = 0;
  for (int cycle = 0; rig.queue(0).completed == 0; ++cycle) {
    REQUIRE(cycle < 400000);
    rig.Cycle();
    most = std::max(most, rig.memory().open_writes().size());
  }
  CHECK(most == 64);
  CHECK(rig.memory().violations() == 0);
}

// A descriptor with queries that is served.
layout::Descriptor MakeQuery(CommandRig& rig) {
  const TestQueue& queue = rig.queue(0);
  layout::Descriptor d = rig.Make(0, false);
  while (d.select_op == layout::kSelectLatest || d.begin == d.end ||
         ExpectedVerdict(d, queue.limits, d.seq, queue.table[d.index_id].Info(d.layer_slot)).status !=
             layout::kStatusOk) {
    d = rig.Make(0, false);
  }
  return d;
}

// Submits a descriptor and lets memory fall silent once that is read. Returns the addresses that are read
// then.
std::vector<uint64_t> ReadsWithoutAnswer(CommandRig& rig, const layout::Descriptor& d) {
  rig.Run(100);
  rig.Submit(0, d);
  const size_t taken = rig.taken_order().size();
  rig.Ring(0);
  while (rig.taken_order().size() == taken) rig.Cycle();
  const uint64_t beats = rig.memory().beats_read();
  while (rig.memory().beats_read() == beats) rig.Cycle();
  rig.memory().answers = false;
  rig.reads().clear();
  rig.Run(200);
  rig.memory().answers = true;
  return rig.reads();
}

uint64_t TokensBeat(const TestQueue& queue, const layout::Descriptor& d) {
  return queue.table[d.index_id].entry.tokens_address + d.layer_slot / 16 * uint64_t{64};
}

TEST_CASE(
    "an index, its tokens and the first queries are read at once when the place of the tokens is known") {
  CommandRig rig(91);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.memory().ready_percent = 100;
  const TestQueue& queue = rig.queue(0);
  const layout::Descriptor d = MakeQuery(rig);
  const uint64_t entry = queue.table_address + d.index_id * uint64_t{64};
  const uint64_t payload = queue.regions[d.payload_region] + d.payload_offset * uint64_t{64};
  CHECK(ReadsWithoutAnswer(rig, d) == std::vector<uint64_t>{entry});
  REQUIRE(rig.Drain());
  const layout::Descriptor again = rig.Again(0, d);
  std::vector<uint64_t> reads = ReadsWithoutAnswer(rig, again);
  reads.resize(3);  // a block of queries that crosses 4 KiB takes two
  CHECK(reads == std::vector<uint64_t>{entry, TokensBeat(queue, d), payload});
  REQUIRE(rig.Drain());
  CHECK(rig.refused() == 0);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("tokens that have moved are read where the index says") {
  CommandRig rig(92);
  Start(rig);
  rig.Open(0, 8, 0, false);
  const layout::Descriptor d = MakeQuery(rig);
  TableIndex& index = rig.queue(0).table[d.index_id];
  const auto run = [&] {
    rig.Submit(0, rig.Again(0, d));
    rig.Ring(0);
    REQUIRE(rig.Drain());
  };
  run();
  for (int n = 0; n < 4; ++n) {
    // The old place goes on telling the old number.
    index.entry.tokens_address = rig.memory().Take(index.tokens.size() * 4);
    ++index.tokens[d.layer_slot];
    rig.StoreIndex(0, d.index_id);
    run();
    run();
  }
  CHECK(rig.refused() == 0);
  const layout::CardIndex entry = index.entry;
  index.entry.layer_slots = d.layer_slot;  // the slot is gone
  rig.StoreIndex(0, d.index_id);
  run();
  index.entry = entry;
  index.entry.exists = 0;
  rig.StoreIndex(0, d.index_id);
  run();
  CHECK(rig.refused() == 2);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("a queue that is enabled again has no places of tokens") {
  CommandRig rig(93);
  Start(rig);
  rig.Open(0, 8, 0, false);
  const layout::Descriptor d = MakeQuery(rig);
  rig.Submit(0, d);
  rig.Ring(0);
  REQUIRE(rig.Drain());
  const uint64_t before = TokensBeat(rig.queue(0), d);
  rig.Write(QueueBase(0) + layout::kCardQueueEnable, 0);
  rig.Open(0, 8, 0, false);
  layout::Descriptor other = MakeQuery(rig);
  while (other.index_id != d.index_id) other = MakeQuery(rig);
  TableIndex& index = rig.queue(0).table[d.index_id];
  other.index_generation = index.entry.generation = d.index_generation;
  rig.StoreIndex(0, d.index_id);
  rig.reads().clear();
  rig.Submit(0, other);
  rig.Ring(0);
  REQUIRE(rig.Drain());
  CHECK(std::find(rig.reads().begin(), rig.reads().end(), before) == rig.reads().end());
  CHECK(rig.refused() == 0);
}

TEST_CASE("queries that were read for a refused descriptor serve no other") {
  CommandRig rig(94);
  Start(rig);
  rig.Open(0, 8, 0, false);
  const layout::Descriptor d = MakeQuery(rig);
  for (int n = 0; n < 4; ++n) {
    rig.Submit(0, rig.Again(0, d));
    layout::Descriptor refused = rig.Again(0, d);
    refused.k = 0;
    if (n % 2 != 0) rig.Submit(0, refused);
    rig.Ring(0);
    REQUIRE(rig.Drain());
    if (n % 2 == 0) {
      rig.Submit(0, rig.Again(0, refused));
      rig.Ring(0);
      REQUIRE(rig.Drain());
    }
    // Other queries at the same place; the rig compares the card's with those in memory.
    uint8_t* const payload =
        rig.memory().At(rig.queue(0).regions[d.payload_region] + d.payload_offset * uint64_t{64});
    for (uint64_t i = 0; i < d.payload_length * uint64_t{64}; ++i) {
      payload[i] = static_cast<uint8_t>(rig.random()());
    }
  }
  CHECK(rig.refused() == 4);
  CHECK(rig.memory().violations() == 0);
}

// Lets interrupts through, and those of the mask be raised.
void UseInterrupts(CommandRig& rig, uint32_t mask) {
  rig.Write(layout::kCardRegInterruptGlobal, 1);
  rig.Write(layout::kCardRegInterruptEnable, mask);
}

// Runs until the line is up; at most so many cycles. Returns the status, and clears it.
uint32_t TakeInterrupt(CommandRig& rig, int cycles = 200000) {
  for (int i = 0; i < cycles && rig.top().irq == 0; ++i) rig.Cycle();
  REQUIRE(rig.top().irq == 1);
  const uint32_t status = rig.Read(layout::kCardRegInterruptStatus);
  CHECK(rig.top().irq == 1);  // a level, until it is cleared
  rig.Write(layout::kCardRegInterruptStatus, status);
  rig.Run(3);
  CHECK(rig.top().irq == 0);
  CHECK(rig.Read(layout::kCardRegInterruptStatus) == 0);
  return status;
}

TEST_CASE("an interrupt comes when it is asked for, and none else") {
  CommandRig rig(70);
  Start(rig);
  const uint32_t first = 0xFFFFFFFE;
  rig.Open(0, 8, first, false);
  rig.Open(1, 8, 0, false);
  const auto answer = [&](uint32_t queue) {
    rig.Submit(queue, rig.Make(queue, false));
    rig.Ring(queue);
    REQUIRE(rig.Drain());
    rig.Run(10);
  };
  UseInterrupts(rig, layout::kCardInterruptCompletion);
  CHECK(rig.Read(layout::kCardRegInterruptGlobal) == 1);
  CHECK(rig.Read(layout::kCardRegInterruptEnable) == layout::kCardInterruptCompletion);
  answer(0);
  CHECK(rig.top().irq == 0);  // nobody asked
  rig.Write(layout::kCardRegAwait, first);
  CHECK(TakeInterrupt(rig, 10) == layout::kCardInterruptCompletion);  // it was there before
  answer(0);
  CHECK(rig.top().irq == 0);  // one for each question
  rig.Write(layout::kCardRegAwait, first + 2);
  answer(1);
  CHECK(rig.top().irq == 0);  // another queue's
  rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  CHECK(TakeInterrupt(rig) == layout::kCardInterruptCompletion);
  CHECK(rig.queue(0).completed == first + 3);  // the head was written
  REQUIRE(rig.Drain());
  // A caller that has taken one more than the head counts is not woken by that one, but by the next.
  rig.Write(layout::kCardRegAwait, first + 4);
  rig.Run(20);
  CHECK(rig.top().irq == 0);
  answer(0);
  CHECK(rig.top().irq == 0);
  answer(0);
  CHECK(TakeInterrupt(rig, 10) == layout::kCardInterruptCompletion);
  // Without Enable nothing is raised, and the question stays; without Global the line is down.
  rig.Write(layout::kCardRegInterruptEnable, 0);
  rig.Write(layout::kCardRegAwait, first + 2);
  rig.Run(20);
  CHECK(rig.Read(layout::kCardRegInterruptStatus) == 0);
  rig.Write(layout::kCardRegInterruptGlobal, 0);
  rig.Write(layout::kCardRegInterruptEnable, layout::kCardInterruptCompletion);
  rig.Run(20);
  CHECK(rig.Read(layout::kCardRegInterruptStatus) == layout::kCardInterruptCompletion);
  CHECK(rig.top().irq == 0);
  rig.Write(layout::kCardRegInterruptStatus, layout::kCardInterruptFailure);  // not set: nothing changes
  rig.Write(layout::kCardRegInterruptGlobal, 1);
  CHECK(TakeInterrupt(rig, 10) == layout::kCardInterruptCompletion);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("no wake-up is lost, whenever the host asks") {
  for (uint64_t seed = 0; seed < static_cast<uint64_t>(Cases(4)); ++seed) {
    CommandRig rig(80 + seed);
    Start(rig);
    auto taken = static_cast<uint32_t>(rig.random()());
    rig.Open(0, 8, taken, false);
    UseInterrupts(rig, layout::kCardInterruptCompletion | layout::kCardInterruptFailure);
    rig.scan_cycles = 20;
    const uint32_t first = taken;
    for (uint32_t submitted = 0; submitted < 25 || taken != first + submitted;) {
      Shake(rig);
      for (uint64_t n = rig.random()() % 3; n > 0 && submitted < 25 && rig.HasRoom(0); --n, ++submitted) {
        rig.Submit(0, rig.Make(0, rig.random()() % 4 == 0));
      }
      rig.Ring(0);
      rig.Run(static_cast<int>(rig.random()() % 400));
      if (taken == first + submitted) continue;
      // Sleeps without another look at the head.
      rig.Write(layout::kCardRegAwait, taken);
      CHECK(TakeInterrupt(rig) == layout::kCardInterruptCompletion);
      const uint32_t head = rig.queue(0).completed;
      CHECK(head != taken);
      taken = rig.random()() % 2 != 0 ? head : taken + 1;
    }
    CHECK(rig.memory().violations() == 0);
  }
}

TEST_CASE("counters") {
  CommandRig rig(5);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.drive_lane_events = true;
  for (int n = 0; n < 40; ++n) {
    while (!rig.HasRoom(0)) rig.Cycle();
    rig.Submit(0, rig.Make(0, n % 3 == 0));
    rig.Ring(0);
  }
  REQUIRE(rig.Drain());
  rig.drive_lane_events = false;
  rig.Run(100);
  const auto counter = [&](uint32_t number) { return rig.ReadPair(layout::kCardRegCounters + 8 * number); };
  CHECK(counter(layout::kCardDescriptors) == rig.completions());
  CHECK(counter(layout::kCardRefused) == rig.refused());
  CHECK(counter(layout::kCardJobs) == rig.jobs());
  CHECK(counter(layout::kCardHostBytesRead) == rig.memory().beats_read() * 64);
  CHECK(counter(layout::kCardHostBytesWritten) == rig.memory().words_written() * 4);
  CHECK(counter(layout::kCardQueueDepth) == 0);
  CHECK(counter(layout::kCardCyclesBusy) > 0);
  CHECK(counter(layout::kCardCyclesTotal) > counter(layout::kCardCyclesBusy));
  for (uint32_t number = 0; number < layout::kCardLaneCounters; ++number) {
    CHECK(rig.ReadPair(uint32_t{layout::kCardRegLanes} + uint32_t{layout::kCardLaneBytes} + 8 * number) ==
          rig.lane_events[number]);
  }
}

TEST_CASE("quiesce ends what is under way and takes no more") {
  CommandRig rig(6);
  Start(rig);
  rig.Open(0, 8, 0, false);
  while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  while (rig.taken_order().empty()) rig.Cycle();
  CHECK((State(rig) & layout::kCardStateIdle) == 0);
  rig.Write(layout::kCardRegControl, layout::kCardControlRun | layout::kCardControlQuiesce);
  int reads = 0;
  while (State(rig) != (layout::kCardStateIdle | layout::kCardStateQuiesced)) REQUIRE(++reads < 40000);
  const size_t taken = rig.taken_order().size();
  CHECK(rig.completions() == taken);
  CHECK(taken < 8);
  rig.Run(2000);
  CHECK(rig.taken_order().size() == taken);
  CHECK(!rig.memory().open());
  rig.Write(layout::kCardRegControl, layout::kCardControlRun);
  REQUIRE(rig.Drain());
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("quiesce reads no heads of polled queues") {
  CommandRig rig(7);
  Start(rig);
  for (uint32_t q = 0; q < 4; ++q) rig.Open(q, 8, q, /*poll=*/true);
  rig.memory().latency = 300;
  rig.Run(3000);
  const uint64_t before = rig.memory().beats_read();
  rig.Run(3000);
  CHECK(rig.memory().beats_read() > before);
  for (int n = 0; n < 20; ++n) {
    rig.Write(layout::kCardRegControl, layout::kCardControlRun | layout::kCardControlQuiesce);
    int reads = 0;
    while ((State(rig) & layout::kCardStateQuiesced) == 0) REQUIRE(++reads < 1000);
    const uint64_t beats = rig.memory().beats_read();
    for (int cycle = 0; cycle < 500; ++cycle) {
      REQUIRE(!rig.memory().open());
      rig.Cycle();
    }
    CHECK(rig.memory().beats_read() == beats);
    rig.Write(layout::kCardRegControl, layout::kCardControlRun);
    rig.Run(static_cast<int>(rig.random()() % 300));
  }
  for (uint32_t q = 0; q < 4; ++q) {
    rig.Submit(q, rig.Make(q, false));
    rig.Ring(q);
  }
  REQUIRE(rig.Drain());
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("a queue that is enabled again begins anew, whatever was read of it meanwhile") {
  for (uint64_t n = 0; n < 10; ++n) {
    CommandRig rig(60 + n);
    Start(rig);
    rig.memory().latency = 2000;
    const bool poll = n % 2 != 0;
    CAPTURE(n, poll);
    rig.Open(1, 8, 1000, poll);
    rig.Run(static_cast<int>(rig.random()() % 3000));
    rig.Write(QueueBase(1) + layout::kCardQueueEnable, 0);
    rig.Open(1, 8, 7, poll);
    for (int d = 0; d < 3; ++d) rig.Submit(1, rig.Make(1, false));
    rig.Ring(1);
    REQUIRE(rig.Drain());
    CHECK(rig.Read(QueueBase(1) + layout::kCardQueueEnable) == 1);
    CHECK(rig.memory().violations() == 0);
  }
}

TEST_CASE("reset within jobs leaves nothing open") {
  for (uint64_t seed = 10; seed < 16; ++seed) {
    CommandRig rig(seed);
    Start(rig);
    rig.Open(0, 8, 0, seed % 2 != 0);
    rig.memory().latency = 400;
    while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
    rig.Ring(0);
    rig.Run(static_cast<int>(rig.random()() % 6000));
    rig.open_lanes = 2;
    rig.Write(layout::kCardRegControl, layout::kCardControlReset);
    rig.Run(1500);
    // A lane's transaction is open, so the reset goes on.
    CHECK(rig.Read(layout::kCardRegControl) == layout::kCardControlReset);
    CHECK(rig.top().stop == 1);
    CHECK(rig.top().core_rst == 0);
    CHECK(!rig.memory().open());
    rig.open_lanes = 0;
    ResetAndServe(rig);
  }
}

TEST_CASE("a job that takes too long fails the card") {
  CommandRig rig(20);
  Start(rig);
  rig.Write(layout::kCardRegWatchdog, 100000);
  rig.Open(0, 8, 0, false);
  for (int n = 0; n < 8; ++n) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  REQUIRE(rig.Drain());
  CHECK(State(rig) == layout::kCardStateIdle);
  rig.Write(layout::kCardRegWatchdog, 3000);
  UseInterrupts(rig, layout::kCardInterruptCompletion | layout::kCardInterruptFailure);
  Block(rig);
  CHECK((State(rig) & layout::kCardStateFailed) != 0);
  CHECK(rig.Read(layout::kCardRegFailure) == layout::kCardFailureWatchdog);
  CHECK(rig.top().stop == 1);
  // The failure was there before the question.
  CHECK(rig.top().irq == 0);
  rig.Write(layout::kCardRegAwait, rig.queue(0).completed);
  CHECK(TakeInterrupt(rig, 10) == layout::kCardInterruptFailure);
  const uint64_t written = rig.memory().words_written();
  rig.Run(3000);
  CHECK(rig.memory().words_written() == written);
  ResetAndServe(rig);
}

TEST_CASE("faults of lanes and errors of host memory fail the card") {
  for (int fault = 0; fault < 4; ++fault) {
    CommandRig rig(30 + static_cast<uint64_t>(fault));
    Start(rig);
    rig.Open(0, 8, 0, false);
    uint32_t expected = layout::kCardFailureHost;
    if (fault == 0) {
      rig.top().fault = layout::kCardFailureExtent << 3;  // of lane 1
      expected = uint32_t{layout::kCardFailureExtent} | 1U << 8;
    }
    if (fault == 1) {
      rig.top().fault = layout::kCardFailureChannel;
      expected = layout::kCardFailureChannel;
    }
    if (fault == 2) rig.memory().fail_read = 20;
    if (fault == 3) rig.memory().fail_write = 5;
    UseInterrupts(rig, layout::kCardInterruptFailure);
    rig.Write(layout::kCardRegAwait, 0);
    while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
    rig.Ring(0);
    rig.Run(20000);
    INFO("fault " << fault);
    CHECK(TakeInterrupt(rig, 10) == layout::kCardInterruptFailure);
    CHECK((State(rig) & layout::kCardStateFailed) != 0);
    CHECK(rig.Read(layout::kCardRegFailure) == expected);
    const uint64_t words = rig.memory().words_written();
    const uint64_t beats = rig.memory().beats_read();
    rig.Run(2000);
    CHECK(rig.memory().words_written() == words);
    CHECK(rig.memory().beats_read() == beats);
    ResetAndServe(rig);
  }
}

TEST_CASE("a head out of bounds stops its queue alone") {
  CommandRig rig(40);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.Open(1, 8, 5, false);
  const uint32_t queue = QueueBase(1);
  rig.Write(queue + layout::kCardQueueHead, 5 + 9);
  rig.Run(100);
  CHECK(rig.Read(queue + layout::kCardQueueEnable) == 3);
  // Another one stops as well.
  rig.Open(2, 4, 0, false);
  rig.Write(QueueBase(2) + layout::kCardQueueHead, 0xFFFFFFFF);
  rig.Run(100);
  CHECK(rig.Read(QueueBase(2) + layout::kCardQueueEnable) == 3);
  CHECK(rig.Read(queue + layout::kCardQueueEnable) == 3);
  for (int n = 0; n < 8; ++n) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  while (rig.queue(0).completed != 8) rig.Cycle();
  CHECK(rig.queue(1).taken == 5);
  // Disabled and set up anew it works.
  rig.Write(queue + layout::kCardQueueEnable, 0);
  rig.Open(1, 8, 7, true);
  for (int n = 0; n < 8; ++n) rig.Submit(1, rig.Make(1, false));
  rig.Ring(1);
  REQUIRE(rig.Drain());
  CHECK(rig.Read(queue + layout::kCardQueueEnable) == 1);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("a fault stays the cause when host memory fails after it") {
  CommandRig rig(41);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.memory().latency = 1000;
  while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
  rig.Ring(0);
  // The next beat that is read has an error; a lane's fault comes before it.
  while (!rig.memory().open()) rig.Cycle();
  rig.memory().fail_read = 0;
  rig.top().fault = layout::kCardFailureExtent << 3;
  rig.Run(3000);
  CHECK(!rig.memory().open());
  CHECK(rig.Read(layout::kCardRegFailure) == (uint32_t{layout::kCardFailureExtent} | 1U << 8));
  ResetAndServe(rig);
}

TEST_CASE("refused descriptors wait behind a job") {
  CommandRig rig(42);
  Start(rig);
  rig.Open(0, 16, 3, false);
  rig.scans_end = false;
  layout::Descriptor d = rig.Make(0, false);
  const TestQueue& queue = rig.queue(0);
  while (d.select_op == layout::kSelectLatest ||
         ExpectedVerdict(d, queue.limits, d.seq, queue.table[d.index_id].Info(d.layer_slot)).status !=
             layout::kStatusOk) {
    d = rig.Make(0, false);
  }
  rig.Submit(0, d);
  for (int n = 0; n < 15; ++n) {
    d = rig.Make(0, false);
    d.heads = 0;
    rig.Submit(0, d);
  }
  rig.Ring(0);
  rig.Run(10000);
  CHECK(rig.completions() == 0);
  CHECK(rig.taken_order().size() < 16);
  rig.scans_end = true;
  REQUIRE(rig.Drain());
  CHECK(rig.refused() == 15);
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("a first stage takes as many entries as there are, for any larger k1") {
  CommandRig rig(43);
  Start(rig);
  rig.Open(0, 8, 0, false);
  int submitted = 0;
  for (int tries = 0; tries < 3000 && submitted < 4; ++tries) {
    layout::Descriptor d = rig.Make(0, false);
    if (d.k1 == 0 || LongScan(d)) continue;
    d.k1 = 0xFF000001;
    rig.Submit(0, d);
    rig.Ring(0);
    REQUIRE(rig.Drain());
    ++submitted;
  }
  CHECK(submitted == 4);
  CHECK(rig.refused() == 0);
}

TEST_CASE("queues are opened and closed beside the work of another") {
  CommandRig rig(44);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.memory().latency = 300;
  rig.scan_cycles = 10;
  for (int n = 0; n < 12; ++n) {
    while (rig.HasRoom(0)) rig.Submit(0, rig.Make(0, false));
    rig.Ring(0);
    rig.Run(static_cast<int>(rig.random()() % 2000));
    rig.Open(1, 4, static_cast<uint32_t>(n), false);
    rig.Submit(1, rig.Make(1, false));
    const size_t before = rig.taken_order().size();
    rig.Ring(1);
    // Closed while its descriptor is read or is under way, which it completes.
    const auto taken = [&] {
      for (size_t at = before; at < rig.taken_order().size(); ++at) {
        if (rig.taken_order()[at] == 1) return true;
      }
      return false;
    };
    for (int cycle = 0; !taken(); ++cycle) {
      REQUIRE(cycle < 100000);
      rig.Cycle();
    }
    rig.Write(QueueBase(1) + layout::kCardQueueEnable, 0);
    REQUIRE(rig.Drain());
  }
  CHECK(rig.memory().violations() == 0);
}

TEST_CASE("after a gap all descriptors are out of sequence") {
  CommandRig rig(50);
  Start(rig);
  rig.Open(0, 8, 0, false);
  rig.Submit(0, rig.Make(0, false));
  layout::Descriptor d = rig.Make(0, false);
  d.seq += 1;
  rig.Submit(0, d);
  for (int n = 0; n < 3; ++n) {
    d = rig.Make(0, false);
    d.seq += 1;
    rig.Submit(0, d);
  }
  rig.Ring(0);
  REQUIRE(rig.Drain());
  CHECK(rig.refused() == 4);
}

}  // namespace
}  // namespace mnemo::rtl_command
