// Direct queues: peers that write descriptors by themselves beside the driver's queue.
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fpga/tests/faults/peer.h"
#include "fpga/tests/faults/stand.h"
#include "fpga/tests/testing/cases.h"
#include "proto/layout/completion.h"
#include "proto/layout/ring.h"

namespace mnemo::card_faults {
namespace {

using layout::RingHeader;
using rtl_tests::Cases;

constexpr Over kBoth[] = {Over::kModel, Over::kRtl};

// Runs until `done`, for a bounded number of simulated cycles.
bool RunUntil(Stand& stand, const std::function<bool()>& done, uint32_t cycles = 400'000) {
  for (uint32_t at = 0; at < cycles; at += 100) {
    if (done()) return true;
    stand.Pass();
  }
  return done();
}

std::vector<std::unique_ptr<Peer>> AttachAll(Stand& stand, uint32_t first_index) {
  std::vector<std::unique_ptr<Peer>> peers;
  for (uint32_t number = 1; number < layout::kCardQueues; ++number) {
    peers.push_back(std::make_unique<Peer>(&stand, number, number % 3 == 0 ? Place::kHost : Place::kCard,
                                           /*poll=*/number % 2 == 0, first_index));
    const absl::Status status = peers.back()->Attach();
    INFO(status);
    REQUIRE(status.ok());
  }
  return peers;
}

TEST_CASE("eight queues are served at once, each with the reference's results") {
  for (const Over over : kBoth) {
    CAPTURE(over);
    // Memories that take and give nothing in a third of the clocks.
    Stand stand({.over = over, .seed = 1, .first_index = 0xFFFFFFFB, .stall_percent = 33});
    REQUIRE(stand.Fill());
    auto peers = AttachAll(stand, 0xFFFFFFFE);
    DriverLoad load(&stand);
    const uint32_t each = over == Over::kModel ? 20 : Cases(3U);
    uint32_t pushed = 0;
    REQUIRE(RunUntil(
        stand,
        [&] {
          if (load.right() + load.under_way() < each) load.Submit(1);
          load.Poll();
          uint32_t finished = load.right();
          for (const auto& peer : peers) {
            peer->Collect();
            if (peer->HasRoom() && peer->right() + peer->under_way() < each) {
              peer->PushGood();
              peer->Ring();
              ++pushed;
            }
            finished += peer->right();
          }
          return finished == each * layout::kCardQueues;
        },
        each * 200'000));
    CHECK(load.wrong() + load.failed() == 0);
    for (const auto& peer : peers) CHECK(peer->wrong() == 0);
    if (stand.rtl() != nullptr) CHECK(stand.rtl()->violations() == 0);
    for (const auto& peer : peers) {
      REQUIRE(stand.driver().DetachQueue(peer->number()).ok());
      CHECK(peer->closed());
      CHECK(!stand.driver().attached(peer->number()));
    }
  }
}

std::vector<uint32_t> WordsOf(const Peer& peer, uint64_t address, uint64_t bytes) {
  std::vector<uint32_t> words;
  for (uint64_t at = 0; at < bytes; at += sizeof(uint32_t)) words.push_back(peer.Word(address + at));
  return words;
}

TEST_CASE("a completion and its results are whole once its last bytes are there, before the head counts it") {
  for (const Place place : {Place::kHost, Place::kCard}) {
    CAPTURE(place);
    Stand stand({.seed = 8, .stall_percent = 20});
    REQUIRE(stand.Fill());
    const uint32_t first = 0xFFFFFFFD;
    Peer peer(&stand, 3, place, /*poll=*/false, first);
    REQUIRE(peer.Attach().ok());
    const uint64_t head = peer.queue().completions + offsetof(RingHeader, head);
    const uint32_t count = Cases(6U);
    uint32_t before_head = 0;
    for (uint32_t n = 0; n < count; ++n) {
      CAPTURE(n);
      const uint32_t seq = first + n;
      // A full ring: the slot of the last completion is used again before the head counts that.
      while (peer.HasRoom()) peer.PushGood();
      peer.Ring();
      const uint64_t slot =
          peer.queue().completions + sizeof(RingHeader) + seq % Peer::kSlots * sizeof(layout::Completion);
      uint32_t cycles = 0;
      while (peer.Word(slot + offsetof(layout::Completion, seq)) != seq) {
        REQUIRE(++cycles < 100'000);
        stand.Pass(1);
      }
      const uint32_t counted = peer.Word(head) - first;
      CHECK((counted == n || counted == n + 1));
      before_head += counted == n;
      const std::vector<uint32_t> completion = WordsOf(peer, slot, sizeof(layout::Completion));
      REQUIRE(peer.Collect() == 1);  // the results are compared
      CHECK(peer.wrong() == 0);
      for (cycles = 0; peer.Word(head) != seq + 1; ++cycles) {
        REQUIRE(cycles < 100'000);
        stand.Pass(1);
        // The next one is not written before.
        CHECK(WordsOf(peer, slot, sizeof(layout::Completion)) == completion);
      }
    }
    CHECK(before_head > 0);
    CHECK(peer.right() == count);
    CHECK(!*stand.driver().QueueStopped(3));
    CHECK(stand.rtl()->violations() == 0);
  }
}

TEST_CASE("a ring that is attached again has no completion that is to come") {
  for (const Over over : kBoth) {
    CAPTURE(over);
    Stand stand({.over = over, .seed = 9});
    REQUIRE(stand.Fill());
    for (const Place place : {Place::kHost, Place::kCard}) {
      CAPTURE(place);
      Peer peer(&stand, 4, place, /*poll=*/false, 0xFFFFFFFE);
      for (const bool reset : {false, true, false}) {
        REQUIRE(peer.Attach().ok());
        for (uint32_t n = 0; n < Peer::kSlots; ++n) peer.PushGood();
        CHECK(peer.Collect() == 0);  // the card knows of nothing
        peer.Ring();
        const uint32_t right = peer.right() + Peer::kSlots;
        REQUIRE(RunUntil(stand, [&] {
          peer.Collect();
          return peer.right() == right;
        }));
        if (reset) {
          REQUIRE(stand.driver().Reset().ok());
        } else {
          REQUIRE(stand.driver().DetachQueue(4).ok());
        }
      }
      CHECK(peer.wrong() == 0);
    }
  }
}

TEST_CASE("no queue waits for more than one descriptor of each other") {
  for (const Over over : kBoth) {
    CAPTURE(over);
    Stand stand({.over = over, .seed = 2});
    REQUIRE(stand.Fill());
    auto peers = AttachAll(stand, 0);
    DriverLoad load(&stand);
    REQUIRE(load.Submit(Peer::kSlots) == Peer::kSlots);
    for (const auto& peer : peers) {
      while (peer->HasRoom()) peer->PushGood();
    }
    for (const auto& peer : peers) peer->Ring();
    // Tails of the rings tell the order in which descriptors are taken.
    std::vector<uint32_t> order;
    std::vector<uint32_t> taken(layout::kCardQueues);
    REQUIRE(RunUntil(stand, [&] {
      for (const auto& peer : peers) {
        const uint32_t tail = peer->Word(peer->queue().ring + offsetof(RingHeader, tail));
        REQUIRE(tail - taken[peer->number()] <= 1);
        if (tail != taken[peer->number()]) order.push_back(peer->number());
        taken[peer->number()] = tail;
      }
      return order.size() == peers.size() * Peer::kSlots;
    }));
    for (const auto& peer : peers) {
      size_t last = order.size();
      for (size_t n = 0; n < order.size(); ++n) {
        if (order[n] != peer->number()) continue;
        CAPTURE(n, peer->number());
        if (last != order.size()) CHECK(n - last <= peers.size());
        last = n;
      }
    }
    REQUIRE(RunUntil(stand, [&] {
      load.Poll();
      for (const auto& peer : peers) peer->Collect();
      return load.under_way() == 0 && peers.back()->under_way() == 0;
    }));
    CHECK(load.right() == Peer::kSlots);
    CHECK(load.wrong() == 0);
  }
}

TEST_CASE("garbage in a queue is refused, and nothing outside of its areas is addressed") {
  const uint32_t cases = Cases(40U);
  Stand stand({.seed = 3});
  REQUIRE(stand.Fill());
  Peer peer(&stand, 5, Place::kCard, /*poll=*/false, 77);
  REQUIRE(peer.Attach().ok());
  stand.Pass(3000);  // queue 0 is open
  stand.rtl()->AllowHost(peer.Spaces());
  for (uint32_t n = 0; n < cases; ++n) {
    if (stand.random()() % 4 == 0) {
      peer.PushGood();
    } else {
      peer.PushGarbage();
    }
    peer.Ring();
    const bool answered = RunUntil(stand, [&] { return peer.Collect() != 0; });
    INFO(n << " " << stand.rtl()->first_violation());
    REQUIRE(answered);
    // After a gap in seq all is refused, so the queue is attached anew.
    if (stand.random()() % 8 == 0) {
      REQUIRE(stand.driver().DetachQueue(5).ok());
      REQUIRE(peer.Attach().ok());
    }
  }
  CHECK(peer.wrong() == 0);
  CHECK(peer.refused() > cases / 4);
  CHECK(stand.rtl()->violations() == 0);
  INFO(stand.rtl()->first_violation());
  CHECK((*stand.port().ReadRegister(layout::kCardRegState) & layout::kCardStateFailed) == 0);
}

TEST_CASE("a ring that overruns or lies is stopped, and the others are served") {
  for (const Over over : kBoth) {
    CAPTURE(over);
    Stand stand({.over = over, .seed = 4});
    REQUIRE(stand.Fill());
    Peer bad(&stand, 1, Place::kHost, /*poll=*/true);
    Peer good(&stand, 2, Place::kCard, /*poll=*/false);
    REQUIRE(bad.Attach().ok());
    REQUIRE(good.Attach().ok());
    const bool many = stand.random()() % 2 != 0;
    bad.RingHead(many ? Peer::kSlots + 1 : 0x80000000);
    DriverLoad load(&stand);
    REQUIRE(load.Submit(2) == 2);
    good.PushGood();
    good.Ring();
    REQUIRE(RunUntil(stand, [&] {
      load.Poll();
      good.Collect();
      return load.right() == 2 && good.right() == 1 && *stand.driver().QueueStopped(1);
    }));
    CHECK(bad.Collect() == 0);
    CHECK(!*stand.driver().QueueStopped(2));
    REQUIRE(stand.driver().DetachQueue(1).ok());
    CHECK(bad.closed());
    REQUIRE(bad.Attach().ok());
    bad.PushGood();
    bad.Ring();
    REQUIRE(RunUntil(stand, [&] { return bad.Collect() != 0; }));
    CHECK(bad.right() == 1);
    CHECK(bad.wrong() + good.wrong() + load.wrong() == 0);
  }
}

TEST_CASE("an index that ends, and a reset, end what queues had") {
  for (const Over over : kBoth) {
    CAPTURE(over);
    Stand stand({.over = over, .seed = 5});
    REQUIRE(stand.Fill());
    Peer peer(&stand, 7, Place::kHost, /*poll=*/true);
    REQUIRE(peer.Attach().ok());
    const Query query = stand.NewQuery(/*direct=*/true);
    REQUIRE(stand.Free());
    // The table of the queue has the index no more.
    peer.Push(query, peer.Good(query));
    peer.Ring();
    REQUIRE(RunUntil(stand, [&] { return peer.Collect() != 0; }));
    CHECK(peer.refused() == 1);
    CHECK(peer.wrong() == 0);
    const absl::StatusOr<layout::AttachHello> again = stand.driver().AttachQueue(6, peer.queue());
    CHECK(again.status().code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(stand.driver().Reset().ok());
    CHECK(!stand.driver().attached(7));
    CHECK(peer.closed());
    CHECK(stand.used_beats() == 0);
    CHECK(peer.Attach().code() == absl::StatusCode::kNotFound);
    REQUIRE(stand.Fill());
    REQUIRE(peer.Attach().ok());
    peer.PushGood();
    peer.Ring();
    REQUIRE(RunUntil(stand, [&] { return peer.Collect() != 0; }));
    CHECK(peer.right() == 1);
    CHECK(peer.wrong() == 0);
  }
}

TEST_CASE("an attachment is checked, and the field is named") {
  Stand stand({.over = Over::kModel, .seed = 6});
  REQUIRE(stand.Fill());
  Peer other(&stand, 2, Place::kHost, false);
  REQUIRE(other.Attach().ok());
  const Peer peer(&stand, 3, Place::kHost, false);
  const auto refused = [&](uint32_t number, const std::function<void(card::DirectQueue&)>& change) {
    card::DirectQueue queue = peer.queue();
    change(queue);
    const absl::Status status = stand.driver().AttachQueue(number, queue).status();
    CHECK(!status.ok());
    CHECK(!stand.driver().attached(3));
    return std::string(status.message());
  };
  const auto has = [](const std::string& text, const std::string& part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(refused(0, [](auto&) {}) == "queue 0: allowed: 1 to 7");
  CHECK(refused(8, [](auto&) {}) == "queue 8: allowed: 1 to 7");
  CHECK(refused(2, [](auto&) {}) == "queue 2: attached already");
  CHECK(refused(3, [](auto& q) { q.slots = 3; }) == "queue 3: slots: 3; allowed: powers of two up to 65536");
  CHECK(refused(3, [](auto& q) { q.regions.clear(); }) == "queue 3: regions: 0; allowed: 1 to 2");
  CHECK(refused(3, [](auto& q) { q.indexes.resize(65); }) == "queue 3: indexes: 65; allowed: 1 to 64");
  CHECK(refused(3, [](auto& q) { q.indexes[1].index_id = 9; }) ==
        "queue 3: indexes[1]: owner " + std::to_string(stand.owner()) + " has no index 9");
  has(refused(3, [](auto& q) { q.ring += 8; }), "queue 3: ring: 512 bytes at");
  has(refused(3, [](auto& q) { q.regions[1].bytes = 0; }), "queue 3: regions[1]: 0 bytes at");
  has(refused(3, [](auto& q) { q.completions = q.ring; }), "overlap its ring");
  has(refused(3, [&](auto& q) { q.regions[0] = other.queue().regions[1]; }), "overlap regions[1] of queue 2");
  const uint64_t host = stand.port().host_address();
  has(refused(3, [&](auto& q) { q.ring = host; }), "queue 3: ring: 512 bytes at");
  has(refused(3, [&](auto& q) { q.regions[0].address = 0; }), "allowed: within");
  has(refused(3, [&](auto& q) { q.regions[0].bytes = uint64_t{1} << 36; }), "allowed: within");
  CHECK(stand.driver().DetachQueue(3).message() == "queue 3: not attached");
  CHECK(stand.driver().RingQueue(3, 1).message() == "queue 3: not attached");
  CHECK(stand.driver().QueueStopped(3).status().message() == "queue 3: not attached");
}

// Cycles of queue 0's operations, one after the other, with `seed` for the latencies.
uint64_t CyclesOf(uint64_t seed, uint32_t empty_queues, bool poll) {
  Stand stand({.seed = seed, .advance_cycles = 20});
  REQUIRE(stand.Fill());
  std::vector<std::unique_ptr<Peer>> peers;
  for (uint32_t number = 1; number <= empty_queues; ++number) {
    peers.push_back(std::make_unique<Peer>(&stand, number, Place::kHost, poll));
    REQUIRE(peers.back()->Attach().ok());
  }
  stand.Pass(3000);
  DriverLoad load(&stand);
  const uint64_t start = stand.port().simulated_cycles();
  for (uint32_t n = 1; n <= 8; ++n) {
    REQUIRE(load.Submit(1) == 1);
    for (uint32_t polls = 0; load.right() < n; ++polls) {
      REQUIRE(polls < 10'000);
      load.Poll();
    }
  }
  return stand.port().simulated_cycles() - start;
}

TEST_CASE("empty queues cost the others nothing") {
  uint64_t none = 0;
  uint64_t doorbells = 0;
  uint64_t polled = 0;
  // The driver polls every 30 cycles: an operation is known to half of that, and latencies differ. Seeds even
  // it out.
  for (uint64_t seed = 7; seed < 12; ++seed) {
    none += CyclesOf(seed, 0, false);
    doorbells += CyclesOf(seed, 4, false);
    polled += CyclesOf(seed, 4, true);
  }
  CAPTURE(none, doorbells, polled);
  CHECK(doorbells <= none + none / 100);
  CHECK(polled <= none + none / 100);
}

}  // namespace
}  // namespace mnemo::card_faults
