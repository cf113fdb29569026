// Registers, queues, refusals and failures of the model.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "fpga/card/model/testing_card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

namespace mnemo::card::model {
namespace {

using layout::Completion;
using layout::Descriptor;

ModelOptions Small(uint32_t channels = 2) {
  ModelOptions options;
  options.shape.channels = channels;
  options.channel_bytes = 16 << 20;
  return options;
}

Descriptor Asked(TestCard& card, std::mt19937& random) {
  Descriptor d = card.NewDescriptor();
  d.group = 2;
  d.k = 40;
  card.SetLengths(&d);
  for (uint32_t n = 0; n < d.heads; ++n) {
    FillQueries(d.group, card.index().dim, d.format, random,
                card.Payload() + n * layout::QueryBlockBytes(d.group, card.index().dim));
  }
  return d;
}

uint64_t Counter(TestCard& card, uint32_t at) {
  return uint64_t{card.Register(at + 4)} << 32 | card.Register(at);
}

void CheckRefused(TestCard& card, const Descriptor& d, uint16_t status, size_t detail) {
  const uint64_t refused = Counter(card, layout::kCardRegCounters + 8 * layout::kCardRefused);
  const Completion completion = card.Run(d);
  CHECK(completion.status == status);
  CHECK(completion.detail == detail);
  CHECK(completion.index_id == d.index_id);
  CHECK(completion.seq == d.seq);
  CHECK(completion.count == 0);
  CHECK(completion.watermark == 0);
  CHECK(completion.bytes_read == 0);
  CHECK(Counter(card, layout::kCardRegCounters + 8 * layout::kCardRefused) == refused + 1);
}

TEST_CASE("an interrupt comes when it is asked for, and stays until it is cleared") {
  std::mt19937 random(7);
  TestCard card(Small(), {.tokens = 256}, random, 5);
  const auto status = [&] { return card.Register(layout::kCardRegInterruptStatus); };
  card.SetRegister(layout::kCardRegInterruptGlobal, 3);
  card.SetRegister(layout::kCardRegInterruptEnable, 7);
  CHECK(card.Register(layout::kCardRegInterruptGlobal) == 1);
  CHECK(card.Register(layout::kCardRegInterruptEnable) == 3);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
  CHECK(status() == 0);  // nobody asked
  card.SetRegister(layout::kCardRegAwait, 5);
  CHECK(status() == layout::kCardInterruptCompletion);  // it was there before
  card.SetRegister(layout::kCardRegInterruptStatus, layout::kCardInterruptFailure);
  CHECK(status() == layout::kCardInterruptCompletion);
  card.SetRegister(layout::kCardRegInterruptStatus, layout::kCardInterruptCompletion);
  card.SetRegister(layout::kCardRegAwait, 7);  // one more than the head counts
  CHECK(status() == 0);
  card.SetRegister(layout::kCardRegAwait, 6);
  CHECK(status() == 0);
  card.SetRegister(layout::kCardRegInterruptEnable, 0);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
  CHECK(status() == 0);
  card.SetRegister(layout::kCardRegInterruptEnable, layout::kCardInterruptCompletion);
  CHECK(status() == layout::kCardInterruptCompletion);  // the question stayed
  card.SetRegister(layout::kCardRegControl, layout::kCardControlReset);
  CHECK(status() == 0);
  CHECK(card.Register(layout::kCardRegInterruptGlobal) == 0);
}

TEST_CASE("registers tell what the card is") {
  std::mt19937 random(1);
  TestCard card(Small(4), {.tokens = 64}, random);
  CHECK(card.Register(layout::kCardRegMagic) == layout::kCardMagic);
  CHECK(card.Register(layout::kCardRegVersion) == 0x10000);
  CHECK(Counter(card, layout::kCardRegCardHash) == layout::kCardHash);
  CHECK(Counter(card, layout::kCardRegLayoutHash) == layout::kLayoutHash);
  CHECK(card.Register(layout::kCardRegShape) == (4 | 4 << 8 | 16 << 16));
  CHECK(card.Register(layout::kCardRegBankWords) == 4096);
  CHECK(card.Register(layout::kCardRegScoreOps) == 0x011E'0F1E);
  CHECK(card.Register(layout::kCardRegFormats) == 0x3E);
  CHECK(card.Register(layout::kCardRegDims) == 0x1F0);
  CHECK(card.Register(layout::kCardRegMaxGroup) == (64 | 16384 << 16));
  CHECK(card.Register(layout::kCardRegControl) == layout::kCardControlRun);
  CHECK(card.Register(layout::kCardRegisterBytes) == 0);
  CHECK(card.Register(0x41) == 0);
  // Read-only registers keep their value, those of an enabled queue too.
  for (const uint32_t offset :
       {uint32_t{layout::kCardRegMagic}, uint32_t{layout::kCardRegShape}, uint32_t{layout::kCardRegState},
        uint32_t{layout::kCardRegQueues} + layout::kCardQueueSlots, 0xFF0U, 0x2000U}) {
    const uint32_t before = card.Register(offset);
    card.SetRegister(offset, ~before);
    CHECK(card.Register(offset) == before);
  }
}

TEST_CASE("options out of bounds are named") {
  const auto refused = [](const std::function<void(ModelOptions&)>& change, const std::string& name) {
    ModelOptions options = Small();
    change(options);
    const auto port = ModelPort::Make(options);
    REQUIRE_FALSE(port.ok());
    CHECK(std::string(port.status().message()).find(name) == 0);
  };
  refused([](ModelOptions& o) { o.shape.channels = 3; }, "channels: 3");
  refused([](ModelOptions& o) { o.shape.channels = 64; }, "channels: 64");
  refused([](ModelOptions& o) { o.shape.queries = 0; }, "queries of a pass: 0");
  refused([](ModelOptions& o) { o.shape.scores = 2; }, "scores a cycle: 2");
  refused([](ModelOptions& o) { o.shape.bank_words = 100; }, "bank words: 100");
  refused([](ModelOptions& o) { o.channel_bytes = 100; }, "channel bytes: 100");
  refused([](ModelOptions& o) { o.channel_bytes = uint64_t{16} << 30; }, "channel bytes: ");
  refused([](ModelOptions& o) { o.host_bytes = 0; }, "host bytes: 0");
  auto port = ModelPort::Make(Small());
  REQUIRE(port.ok());
  std::vector<uint8_t> bytes(64);
  CHECK_FALSE((*port)->Read(0, bytes).ok());
  CHECK_FALSE((*port)->Write(UINT64_MAX - 10, bytes).ok());
  const uint64_t base = uint64_t{*(*port)->ReadRegister(layout::kCardRegChannels)} * 64;
  CHECK_FALSE((*port)->Write(base + (32 << 20) - 63, bytes).ok());
  CHECK((*port)->Write(base + (32 << 20) - 64, bytes).ok());
}

TEST_CASE("what validate.h refuses, the card refuses") {
  std::mt19937 random(2);
  TestCard card(Small(), {.tokens = 256}, random);
  Descriptor d = Asked(card, random);
  d.index_generation = 3;
  CheckRefused(card, d, layout::kStatusStaleGeneration, offsetof(Descriptor, index_generation));
  d = Asked(card, random);
  d.index_id = 1;  // its entry has exists 0
  CheckRefused(card, d, layout::kStatusUnknownIndex, offsetof(Descriptor, index_id));
  d = Asked(card, random);
  d.index_id = 4;  // behind the table
  CheckRefused(card, d, layout::kStatusBadField, offsetof(Descriptor, index_id));
  d = Asked(card, random);
  d.end += 64;
  CheckRefused(card, d, layout::kStatusBadField, offsetof(Descriptor, end));
  d = Asked(card, random);
  d.layer_slot = 1;
  CheckRefused(card, d, layout::kStatusBadField, offsetof(Descriptor, layer_slot));
  d = Asked(card, random);
  d.payload_region = 1;
  CheckRefused(card, d, layout::kStatusBadRegion, offsetof(Descriptor, payload_region));
  d = Asked(card, random);
  d.result_offset = TestCard::kRegionUnits;
  CheckRefused(card, d, layout::kStatusBadRegion, offsetof(Descriptor, result_offset));
  d = Asked(card, random);
  d.op = layout::kOpGather;
  CheckRefused(card, d, layout::kStatusUnsupported, offsetof(Descriptor, op));
  d = Asked(card, random);
  d.epoch = 1;
  CheckRefused(card, d, layout::kStatusStaleEpoch, offsetof(Descriptor, epoch));
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
  // After a gap the queue is out of sequence.
  d = Asked(card, random);
  d.seq += 1;
  CheckRefused(card, d, layout::kStatusBadSequence, offsetof(Descriptor, seq));
  CheckRefused(card, Asked(card, random), layout::kStatusBadSequence, offsetof(Descriptor, seq));
}

TEST_CASE("what the card does not serve is unsupported, whatever the queue grants") {
  std::mt19937 random(3);
  const auto refused = [&](TestCard& card, const std::function<void(Descriptor&)>& change, size_t detail) {
    card.SetQueue(layout::kCardQueueEnable, 0);
    card.SetUpQueue();
    card.SetQueue(layout::kCardQueueEnable, 0);
    card.SetQueue(layout::kCardQueueOps, 0xFFFFFFFF);
    card.SetQueue(layout::kCardQueueScoreOps, 0xFFFFFFFF);
    card.SetQueue(layout::kCardQueueMaxK, 1 << 20);
    card.SetQueue(layout::kCardQueueEnable, 1);
    Descriptor d = Asked(card, random);
    change(d);
    card.SetLengths(&d);
    d.payload_length += 64;  // enough for any dim
    CheckRefused(card, d, layout::kStatusUnsupported, detail);
  };
  TestCard codes(Small(), {.format = layout::kFormatCodes8, .tokens = 256}, random);
  refused(
      codes, [](Descriptor& d) { d.flags = layout::kFlagByRank; }, offsetof(Descriptor, flags));
  refused(
      codes, [](Descriptor& d) { d.k = 16385; }, offsetof(Descriptor, k));
  ModelOptions narrow = Small();
  narrow.shape.queries = 1;
  TestCard few(narrow, {.tokens = 256}, random);
  refused(
      few, [](Descriptor& d) { d.group = 17; }, offsetof(Descriptor, group));
  TestCard wide(Small(), {.dim = 256, .tokens = 64}, random);
  layout::CardIndex entry = wide.Entry();
  entry.dim = 512;
  wide.SetIndex(entry);
  refused(
      wide, [](Descriptor& d) { d.payload_length = 100; }, offsetof(Descriptor, index_id));
}

TEST_CASE("a scan takes as many words as a bank has, not one more") {
  std::mt19937 random(4);
  ModelOptions options = Small();
  options.shape.bank_words = 64;  // 8 pages of codes a lane and pass
  TestCard card(options, {.tokens = 64 * 34, .shift = 1}, random);
  TestCard parts(options, {.format = layout::kFormatBounds, .tokens = 64 * 130}, random);
  const auto jobs = [&](uint32_t group, uint32_t begin, uint32_t end, bool codes = true) {
    TestCard& of = codes ? card : parts;
    Descriptor d = of.NewDescriptor();
    d.group = static_cast<uint8_t>(group);
    d.k = 4;
    d.begin = begin;
    d.end = end;
    of.SetLengths(&d);
    const uint64_t before = Counter(of, layout::kCardRegCounters + 8 * layout::kCardJobs);
    CHECK(of.Run(d).status == layout::kStatusOk);
    return Counter(of, layout::kCardRegCounters + 8 * layout::kCardJobs) - before;
  };
  CHECK(jobs(4, 0, 64 * 16) == 1);
  CHECK(jobs(4, 64, 64 * 17) == 1);
  CHECK(jobs(4, 0, 64 * 16 + 1) == 2);
  CHECK(jobs(4, 63, 64 * 16 + 1) == 2);
  CHECK(jobs(5, 0, 64 * 8) == 1);
  CHECK(jobs(5, 0, 64 * 8 + 1) == 2);
  CHECK(jobs(4, 100, 100) == 1);
  // A page of bounds is a word.
  CHECK(jobs(4, 0, 64 * 128, false) == 1);
  CHECK(jobs(4, 0, 64 * 128 + 16, false) == 2);
}

TEST_CASE("a long scan lists as many pages of a lane as a bank has room for ranks") {
  std::mt19937 random(6);
  ModelOptions options = Small();
  options.shape.bank_words = 16;
  TestCard card(options, {.dim = 16, .tokens = 64 * 260}, random);
  const auto asked = [&](uint32_t group, uint32_t k, uint32_t pages) {
    Descriptor d = card.NewDescriptor();
    d.group = static_cast<uint8_t>(group);
    d.k = k;
    d.end = 64 * pages;
    card.SetLengths(&d);
    return d;
  };
  // Ranks of 8 pages of each of 2 lanes, whatever the group is.
  CHECK(card.Run(asked(4, 8, 200)).status == layout::kStatusOk);
  CheckRefused(card, asked(4, 9, 200), layout::kStatusUnsupported, offsetof(Descriptor, k));
  CHECK(card.Run(asked(4, 1000, 16)).status == layout::kStatusOk);
  CheckRefused(card, asked(4, 1000, 17), layout::kStatusUnsupported, offsetof(Descriptor, k));
  // Scores of two pages.
  CheckRefused(card, asked(5, 1, 3), layout::kStatusUnsupported, offsetof(Descriptor, group));
  // 16 words of 8 pages a lane.
  CHECK(card.Run(asked(4, 1, 256)).status == layout::kStatusOk);
  CheckRefused(card, asked(4, 1, 257), layout::kStatusUnsupported, offsetof(Descriptor, end));
  // With a first stage k1 pages are listed.
  const auto cascade = [&](uint32_t group, uint32_t k1, uint32_t pages) {
    Descriptor d = asked(group, 1, pages);
    d.k1 = k1;
    return d;
  };
  CHECK(card.Run(cascade(4, 8, 200)).status == layout::kStatusOk);
  CheckRefused(card, cascade(4, 9, 200), layout::kStatusUnsupported, offsetof(Descriptor, k1));
  CHECK(card.Run(cascade(4, 1000, 16)).status == layout::kStatusOk);
  CheckRefused(card, cascade(4, 1000, 17), layout::kStatusUnsupported, offsetof(Descriptor, k1));
  CheckRefused(card, cascade(5, 1, 3), layout::kStatusUnsupported, offsetof(Descriptor, group));
}

// A page list names beats outside of its channel: the card fails, answers nothing more, and works after a
// reset.
TEST_CASE("hostile page lists fail the card") {
  std::mt19937 random(5);
  for (const uint32_t extent : {0xFFFFFFFFU, (16U << 20) / 64, (16U << 20) / 64 - 18, 0x80000000U}) {
    TestCard card(Small(4), {.tokens = 640}, random);
    card.SetExtent(6, extent);
    Descriptor d = Asked(card, random);
    d.end = 384;  // up to page 5
    CHECK(card.Run(d).status == layout::kStatusOk);
    card.Ring(Asked(card, random));
    card.Ring(Asked(card, random));
    card.port().Advance();
    card.port().Advance();
    Completion completion;
    CHECK_FALSE(card.Take(&completion));
    CHECK((card.Register(layout::kCardRegState) & layout::kCardStateFailed) != 0);
    CHECK(card.Register(layout::kCardRegFailure) == (layout::kCardFailureExtent | 2 << 8));
  }
  TestCard card(Small(4), {.tokens = 640}, random);
  card.SetExtent(6, (16U << 20) / 64 - 19);  // the last block that fits
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
  layout::CardIndex entry = card.Entry();
  entry.list_beat = (16U << 20) / 64;
  card.SetIndex(entry);
  card.Ring(Asked(card, random));
  card.port().Advance();
  CHECK(card.Register(layout::kCardRegFailure) == layout::kCardFailureExtent);
}

TEST_CASE("addresses outside of host memory fail the card") {
  std::mt19937 random(6);
  for (const uint32_t offset : {layout::kCardQueueTable, layout::kCardQueueRegion0, layout::kCardQueueRing,
                                layout::kCardQueueCompletions}) {
    TestCard card(Small(), {.tokens = 128}, random);
    card.SetQueue(layout::kCardQueueEnable, 0);
    card.SetQueue(static_cast<uint32_t>(offset) + 4, 0);
    card.SetQueue(layout::kCardQueueEnable, 1);
    card.Ring(Asked(card, random));
    card.port().Advance();
    Completion completion;
    CHECK_FALSE(card.Take(&completion));
    CHECK(card.Register(layout::kCardRegFailure) == layout::kCardFailureHost);
  }
}

TEST_CASE("the watchdog ends a job that takes too long") {
  std::mt19937 random(7);
  TestCard card(Small(), {.tokens = 640}, random);
  card.SetRegister(layout::kCardRegWatchdog, 1 << 20);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
  card.SetRegister(layout::kCardRegWatchdog, 100);
  card.Ring(Asked(card, random));
  card.port().Advance();
  Completion completion;
  CHECK_FALSE(card.Take(&completion));
  CHECK(card.Register(layout::kCardRegFailure) == layout::kCardFailureWatchdog);
  CHECK((card.Register(layout::kCardRegState) & layout::kCardStateFailed) != 0);
}

TEST_CASE("quiesce leaves descriptors in the ring, reset drops all") {
  std::mt19937 random(8);
  TestCard card(Small(), {.tokens = 128}, random);
  card.SetRegister(layout::kCardRegControl, layout::kCardControlRun | layout::kCardControlQuiesce);
  card.Ring(Asked(card, random));
  card.port().Advance();
  Completion completion;
  CHECK_FALSE(card.Take(&completion));
  CHECK(card.Register(layout::kCardRegState) == (layout::kCardStateIdle | layout::kCardStateQuiesced));
  CHECK(Counter(card, layout::kCardRegCounters + 8 * layout::kCardQueueDepth) == 1);
  card.SetRegister(layout::kCardRegControl, layout::kCardControlRun);
  CHECK(card.Register(layout::kCardRegState) == 0);
  card.port().Advance();
  CHECK(card.Take(&completion));
  CHECK(card.Register(layout::kCardRegState) == layout::kCardStateIdle);
  CHECK(card.port().simulated_cycles() > 0);
  const std::vector<uint32_t> channels = {
      card.Register(layout::kCardRegChannels), card.Register(layout::kCardRegChannels + 4),
      card.Register(layout::kCardRegChannels + 8), card.Register(layout::kCardRegChannels + 12)};
  card.SetRegister(layout::kCardRegControl, layout::kCardControlReset);
  CHECK(card.Register(layout::kCardRegControl) == 0);
  CHECK(card.port().simulated_cycles() == 0);
  for (uint32_t offset = layout::kCardRegControl; offset < layout::kCardRegisterBytes; offset += 4) {
    const uint32_t idle = offset == layout::kCardRegState ? uint32_t{layout::kCardStateIdle} : 0;
    CHECK(card.Register(offset) == idle);
  }
  for (uint32_t n = 0; n < channels.size(); ++n) {
    card.SetRegister(layout::kCardRegChannels + 4 * n, channels[n]);
  }
  card.SetUpQueue();
  card.SetRegister(layout::kCardRegControl, layout::kCardControlRun);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
}

TEST_CASE("a ring's indices wrap, and a full ring is worked off in order") {
  std::mt19937 random(9);
  TestCard card(Small(), {.tokens = 128}, random, 0xFFFFFFF9);
  for (uint32_t round = 0; round < 4; ++round) {
    const uint32_t first = card.next_seq();
    for (uint32_t n = 0; n < TestCard::kSlots; ++n) {
      card.Ring(Asked(card, random));
    }
    CHECK(Counter(card, layout::kCardRegCounters + 8 * layout::kCardQueueDepth) == TestCard::kSlots);
    for (uint32_t n = 0; n < TestCard::kSlots; ++n) {
      card.port().Advance();
      Completion completion;
      REQUIRE(card.Take(&completion));
      CHECK(completion.seq == first + n);
      CHECK(completion.status == layout::kStatusOk);
    }
  }
  // A head that cannot be stops the queue until it is disabled.
  card.SetQueue(layout::kCardQueueHead, card.Queue(layout::kCardQueueHead) + 9);
  card.port().Advance();
  Completion completion;
  CHECK_FALSE(card.Take(&completion));
  CHECK(card.Queue(layout::kCardQueueEnable) == (layout::kCardQueueEnabled | layout::kCardQueueStopped));
  CHECK(card.Register(layout::kCardRegState) == layout::kCardStateIdle);
  card.SetQueue(layout::kCardQueueEnable, 0);
  card.SetUpQueue();
  CHECK(card.Queue(layout::kCardQueueEnable) == 1);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
}

TEST_CASE("descriptors that are known early start without a wait") {
  std::mt19937 random(13);
  TestCard card(Small(), {.tokens = 128}, random);
  card.Run(Asked(card, random));
  const uint64_t alone = card.port().simulated_cycles();
  for (int n = 0; n < 4; ++n) {
    card.Ring(Asked(card, random));
  }
  for (int n = 0; n < 4; ++n) {
    card.port().Advance();
  }
  const uint64_t together = card.port().simulated_cycles() - alone;
  CHECK(together > alone);
  CHECK(together < 4 * alone - 3 * (FetchTime(1024, true) + LoadTime(1024, true)));
  CHECK(card.Register(layout::kCardRegState) == layout::kCardStateIdle);
}

TEST_CASE("queues take turns") {
  std::mt19937 random(12);
  TestCard card(Small(), {.tokens = 128}, random);
  for (uint32_t queue = 1; queue < layout::kCardQueues; ++queue) {
    card.SetUpQueue(queue);
  }
  // Queue 3 is full, 5 and 6 have two descriptors each.
  for (uint32_t n = 0; n < TestCard::kSlots; ++n) {
    for (const uint32_t queue : {3U, 5U, 6U}) {
      Descriptor d = Asked(card, random);
      d.seq = card.NewDescriptor(queue).seq;
      if (queue == 3 || n < 2) {
        card.Ring(d, queue);
      }
    }
  }
  std::vector<uint32_t> order;
  for (uint32_t n = 0; n < TestCard::kSlots + 4; ++n) {
    card.port().Advance();
    for (uint32_t queue = 0; queue < layout::kCardQueues; ++queue) {
      Completion completion;
      if (card.Take(&completion, queue)) {
        CHECK(completion.status == layout::kStatusOk);
        order.push_back(queue);
      }
    }
  }
  CHECK(order == std::vector<uint32_t>{3, 5, 6, 3, 5, 6, 3, 3, 3, 3, 3, 3});
  // A queue that is stopped leaves the others alone.
  card.SetQueue(layout::kCardQueueHead, 100, 5);
  CHECK(card.Queue(layout::kCardQueueEnable, 5) == 3);
  CHECK(card.Run(Asked(card, random)).status == layout::kStatusOk);
}

TEST_CASE("a polled queue takes its head from the ring's header") {
  std::mt19937 random(10);
  TestCard card(Small(), {.tokens = 128}, random);
  card.SetQueue(layout::kCardQueueEnable, 0);
  card.SetQueue(layout::kCardQueuePoll, 1);
  card.SetQueue(layout::kCardQueueEnable, 1);
  const Descriptor d = Asked(card, random);
  card.Ring(d);
  card.SetQueue(layout::kCardQueueHead, 0);  // the register does not matter
  card.port().Advance();
  Completion completion;
  REQUIRE(card.Take(&completion));
  CHECK(completion.seq == d.seq);
  card.port().Advance();
  CHECK_FALSE(card.Take(&completion));
}

TEST_CASE("completions and counters tell times, jobs and beats") {
  std::mt19937 random(11);
  TestCard card(Small(), {.tokens = 640}, random);
  Descriptor d = Asked(card, random);
  d.k1 = 200;
  card.SetLengths(&d);
  const Completion completion = card.Run(d);
  CHECK(completion.status == layout::kStatusOk);
  CHECK(completion.score_ns > 0);
  CHECK(completion.select_ns > 0);
  // The sign stage reads 10 beats of each of 10 pages, the second all of the pages that are left.
  CHECK(completion.bytes_read >= (10 * 10 + 19) * 64);
  CHECK(completion.bytes_read <= (10 * 10 + 10 * 19) * 64);
  CHECK(completion.bytes_read % 64 == 0);
  CHECK(Counter(card, layout::kCardRegCounters + 8 * layout::kCardJobs) == 2);
  CHECK(Counter(card, layout::kCardRegCounters + 8 * layout::kCardDescriptors) == 1);
  uint64_t beats = 0;
  for (uint32_t lane = 0; lane < 2; ++lane) {
    const uint32_t at = layout::kCardRegLanes + lane * layout::kCardLaneBytes;
    beats += Counter(card, at + 8 * layout::kCardLaneBeats);
    CHECK(Counter(card, at + 8 * layout::kCardLaneBusy) > 0);
  }
  CHECK(beats >= completion.bytes_read / 64);
  CHECK(Counter(card, layout::kCardRegCounters) == card.port().simulated_cycles());
}

}  // namespace
}  // namespace mnemo::card::model
