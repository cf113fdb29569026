// The model's units, each against proto/layout or its definition, and the estimate of cycles against the
// card's figures.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "fpga/card/card_driver.h"
#include "fpga/card/model/command_model.h"
#include "fpga/card/model/lane_model.h"
#include "fpga/card/model/select_model.h"
#include "fpga/card/model/timing.h"
#include "proto/layout/card.h"
#include "proto/layout/numerics.h"
#include "proto/layout/reference.h"

namespace mnemo::card::model {
namespace {

TEST_CASE("a plane unit sums the codes whose bit is set") {
  std::mt19937 random(1);
  for (int n = 0; n < 2000; ++n) {
    std::vector<int8_t> codes(n % 3 == 0 ? 64 : n % 3 == 1 ? 16 : 37);
    for (int8_t& code : codes) {
      code = n % 5 == 0 ? int8_t{-128} : static_cast<int8_t>(random());
    }
    const Query query = MakeQueryTables(codes, {}, Kind::kCodes);
    REQUIRE(query.tables.size() == 1);
    const uint64_t bits = n % 7 == 0 ? ~uint64_t{0} : uint64_t{random()} << 32 | random();
    int32_t sum = 0;
    for (size_t i = 0; i < codes.size(); ++i) {
      sum += (bits >> i & 1) != 0 ? codes[i] : 0;
    }
    REQUIRE(PlaneUnit(bits, query.tables[0]) == sum);
    REQUIRE(query.sum == std::accumulate(codes.begin(), codes.end(), 0));
  }
}

TEST_CASE("queries of bounds are split by sign") {
  const std::vector<int8_t> codes = {5, -7, 0, -128, 127, 1, -1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const std::vector<int8_t> segments = Segments(codes, Kind::kBounds);
  REQUIRE(segments.size() == 128);
  for (size_t i = 0; i < 64; ++i) {
    const int8_t code = i < codes.size() ? codes[i] : int8_t{0};
    CHECK(segments[i] == std::min<int8_t>(code, 0));
    CHECK(segments[64 + i] == std::max<int8_t>(code, 0));
  }
  CHECK(Segments(std::vector<int8_t>(128, 1), Kind::kBounds).size() == 256);
  CHECK(Segments(codes, Kind::kMeans).size() == 64);
}

TEST_CASE("masks of a range") {
  ScanJob job;
  job.first_page = 5;
  job.last_page = 7;
  job.skip = 3;
  job.last_entry = 10;
  CHECK(RangeMask(job, 5) == ~uint64_t{7});
  CHECK(RangeMask(job, 6) == ~uint64_t{0});
  CHECK(RangeMask(job, 7) == 0x7FF);
  job.last_page = 5;
  CHECK(RangeMask(job, 5) == 0x7F8);
  job.kind = Kind::kBounds;
  job.last_page = 6;
  CHECK(RangeMask(job, 5) == 8);
  job.fold = true;
  job.skip = job.last_entry = 0;
  CHECK(RangeMask(job, 5) == 1);
  CHECK(RangeMask(job, 6) == 1);
}

// Scores of one of several kinds, with entries that do not count between them.
ScoreStore RandomScores(const SelectJob& job, uint32_t pages, uint32_t kind, std::mt19937& random) {
  ScoreStore store;
  for (uint32_t slot = 0; slot < pages; ++slot) {
    const uint64_t all = job.entries == 64 ? ~uint64_t{0} : (uint64_t{1} << job.entries) - 1;
    const uint64_t some = uint64_t{random()} << 32 | random();
    store.pages.push_back({job.shift + 3 * slot, kind % 2 == 0 ? all : all & some});
    for (uint32_t n = 0; n < job.entries * job.group; ++n) {
      const auto at = static_cast<int32_t>(slot * job.entries * job.group + n);
      const int32_t y = kind < 2   ? static_cast<int32_t>(random() % 65536) - 32768
                        : kind < 4 ? static_cast<int32_t>(random() % 3) - 1
                        : kind < 6 ? -32768
                        : kind < 8 ? at % 30000 - 15000
                                   : (at == 77 ? 32767 : -32768);
      store.y.push_back(static_cast<int16_t>(y));
    }
  }
  return store;
}

TEST_CASE("a selection equals ranks and top k of the reference") {
  std::mt19937 random(2);
  for (uint32_t n = 0; n < 600; ++n) {
    SelectJob job;
    job.exp2 = n % 3 == 0;
    job.plain = !job.exp2 && random() % 2 == 0;
    job.entries = n % 4 == 0 ? 4 : n % 4 == 1 ? 1 : 64;
    job.group = 1 + random() % (n % 10 == 0 ? 16 : 4);
    job.shift = random() % 32;
    job.to_list = random() % 3 == 0;
    const uint32_t pages = random() % (n % 50 == 0 ? 400 : 40);
    const ScoreStore store = RandomScores(job, pages, random() % 10, random);
    job.k = n % 5 == 0 ? 16384 : 1 + random() % (pages * job.entries + 3);
    // The reference has the entries that count alone, query after query.
    std::vector<uint32_t> at;
    for (uint32_t entry = 0; entry < pages * job.entries; ++entry) {
      if ((store.pages[entry / job.entries].mask >> (entry % job.entries) & 1) != 0) {
        at.push_back(entry);
      }
    }
    std::vector<int16_t> scores;
    for (uint32_t g = 0; g < job.group; ++g) {
      for (const uint32_t entry : at) {
        scores.push_back(store.y[entry * job.group + g]);
      }
    }
    const std::vector<uint8_t> block(layout::QueryBlockBytes(job.group, 64));
    const uint32_t group_op = job.exp2    ? layout::kGroupExp2Sum
                              : job.plain ? layout::kGroupPlainMax
                                          : layout::kGroupMax;
    const std::vector<int32_t> ranks = layout::Ranks(scores, job.group, group_op, 64, block.data());
    const uint64_t total = std::accumulate(ranks.begin(), ranks.end(), uint64_t{0});
    if (random() % 3 == 0) {
      job.bounded = true;
      job.bound = job.exp2                      ? static_cast<int32_t>(random() % 65537)
                  : ranks.empty() || n % 7 == 0 ? layout::kRankFloor
                                                : ranks[random() % ranks.size()];
      if (job.exp2 && random() % 2 == 0 && total != 0) {
        job.bound =
            static_cast<int32_t>((static_cast<uint64_t>(ranks[random() % ranks.size()]) << 16) / total);
      }
    }
    std::vector<uint32_t> passed;
    std::vector<int32_t> passed_ranks;
    for (uint32_t position = 0; position < ranks.size(); ++position) {
      const int32_t rank = ranks[position];
      const bool reaches = job.exp2 ? layout::ReachesShare(static_cast<uint32_t>(rank), total,
                                                           static_cast<uint32_t>(job.bound))
                                    : rank >= job.bound;
      if (!job.bounded || reaches) {
        passed.push_back(position);
        passed_ranks.push_back(rank);
      }
    }
    std::vector<uint32_t> best;
    for (const uint32_t position : layout::TopK(passed_ranks, job.k)) {
      best.push_back(passed[position]);
    }
    Kept kept;
    const Hits hits = Select(job, store, &kept);
    INFO("case " << n << ", k " << job.k << " of " << at.size() << ", group " << job.group << ", operation "
                 << group_op << ", bound " << job.bounded << " " << job.bound);
    CHECK(hits.candidates == passed.size());
    CHECK(hits.cut == (job.bounded && passed.size() > job.k));
    std::vector<uint32_t> ids;
    std::vector<uint64_t> masks(pages);
    std::vector<int32_t> chosen;
    for (const uint32_t position : best) {
      const uint32_t entry = at[position];
      const uint32_t page = store.pages[entry / job.entries].page - job.shift;
      ids.push_back(page * job.entries + entry % job.entries);
      masks[entry / job.entries] |= uint64_t{1} << (entry % job.entries);
      chosen.push_back(ranks[position]);
    }
    CHECK(hits.last_rank == (chosen.empty() ? 0 : *std::min_element(chosen.begin(), chosen.end())));
    if (!job.to_list) {
      REQUIRE(hits.ids == ids);
      REQUIRE(hits.ranks == chosen);
      CHECK(hits.list.empty());
      continue;
    }
    CHECK(hits.ids.empty());
    size_t next = 0;
    for (uint32_t slot = 0; slot < pages; ++slot) {
      if (masks[slot] != 0) {
        REQUIRE(next < hits.list.size());
        CHECK(hits.list[next].page == store.pages[slot].page);
        CHECK(hits.list[next].mask == masks[slot]);
        ++next;
      }
    }
    CHECK(next == hits.list.size());
  }
}

// Pages 0 and 1 hold the best scores of query 0, page 2 that of query 1. The lower ids win, so page 2 is not
// listed; the ranks of the listed entries are still those below its score.
TEST_CASE("a long scan keeps the best score of a query whose page is not listed") {
  SelectJob job;
  job.entries = 64;
  job.group = 2;
  job.k = 2;
  ScoreStore store;
  for (const uint32_t page : {0U, 1U, 2U}) {
    store.pages.push_back({page, ~uint64_t{0}});
    store.y.resize(store.y.size() + size_t{64} * 2, -1000);
    int16_t* y = &store.y[size_t{page} * 64 * 2];
    y[0] = 90;  // 10 below the best
    y[1] = 50;  // the best of query 1 in the listed pages
    y[2] = page == 2 ? 0 : 100;
    y[5] = page == 2 ? 100 : 0;
  }
  job.maxima = job.to_list = true;
  Kept kept;
  const Hits pages = Select(job, store, &kept);
  REQUIRE(pages.list.size() == 2);
  CHECK(pages.list[0].page == 0);
  CHECK(pages.list[1].page == 1);
  CHECK(pages.list[1].mask == ~uint64_t{0});
  CHECK(pages.candidates == 192);
  job.maxima = job.to_list = false;
  job.kept = true;
  store.pages.pop_back();
  store.y.resize(size_t{64} * 2 * 2);
  const Hits hits = Select(job, store, &kept);
  CHECK(hits.ids == std::vector<uint32_t>{1, 65});
  CHECK(hits.ranks == std::vector<int32_t>{0, 0});
  CHECK(hits.candidates == 192);
}

TEST_CASE("rank codes lie above 0 and go back to ranks") {
  for (const int32_t y : {-32768, -32767, -4096, -1, 0, 1, 32767}) {
    const auto score = static_cast<int16_t>(y);
    const int16_t best = 32767;
    const auto check = [&](const SelectJob& job, int32_t rank) {
      const uint32_t code = RankCode(job, {&score, 1}, {&best, 1});
      CHECK(code > 0);
      CHECK(RankOfCode(job, code) == rank);
      return code;
    };
    CHECK(check({}, layout::MaxTerm(y, best)) >> 12 == 1);
    CHECK(check({.plain = true}, layout::PlainMaxTerm(y)) <= UINT16_MAX);
    check({.exp2 = true}, static_cast<int32_t>(layout::Exp2Term(y, best)));
  }
}

constexpr double kNsOfCycle = 4;  // 250 MHz

Shape Full() { return {.channels = 32, .queries = 4, .scores = 16, .bank_words = 4096}; }

// Cycles of a scan of one head of 128 by the fullest of 32 lanes.
ScanCycles ScanOf(uint32_t format, uint32_t tokens, bool sign_stage) {
  const layout::CardBlock block = layout::CardBlockOf(format, 128);
  ScanJob job;
  job.kind = format == layout::kFormatBounds ? Kind::kBounds : Kind::kCodes;
  job.sign_stage = sign_stage;
  job.group = 4;
  LaneWork lane;
  lane.pages = tokens / 64 / 32;
  lane.beats = lane.pages * (sign_stage ? block.scales : block.beats);
  lane.list_beats = (lane.pages + 15) / 16;
  return ScanTime(job, Full(), lane);
}

TEST_CASE("the estimate of a scan keeps to the card's figures") {
  constexpr uint32_t kMillion = 1 << 20;
  const auto microseconds = [](const ScanCycles& cycles) {
    return static_cast<double>(cycles.total) * kNsOfCycle / 1000;
  };
  CHECK(microseconds(ScanOf(layout::kFormatCodes2, kMillion, false)) <= 94);
  CHECK(microseconds(ScanOf(layout::kFormatCodes4, kMillion, false)) <= 178);
  CHECK(microseconds(ScanOf(layout::kFormatCodes8, kMillion, false)) <= 345);
  CHECK(microseconds(ScanOf(layout::kFormatCodes2, kMillion, true)) <= 50);
  CHECK(microseconds(ScanOf(layout::kFormatBounds, kMillion, false)) <= 45);
  // Memory bounds all of these, at 92 % of its peak and no more.
  CHECK(microseconds(ScanOf(layout::kFormatCodes2, kMillion, false)) >= 87);
  CHECK(microseconds(ScanOf(layout::kFormatCodes8, kMillion, false)) >= 320);
}

TEST_CASE("the estimate of a descriptor keeps to the card's figures") {
  const auto microseconds = [](uint32_t tokens) {
    SelectJob select;
    select.group = 4;
    select.k = 1024;
    const uint64_t pages = tokens / 64;
    const HitWork hits = {.of_lane = 1024 / 32,
                          .groups = std::max<uint64_t>(128, std::min<uint64_t>(1024, pages))};
    Timeline timeline(FetchTime(1024, true) + LoadTime(1024, true));
    for (int head = 0; head < 8; ++head) {
      timeline.Add(ScanOf(layout::kFormatCodes2, tokens, false).total,
                   SelectTime(select, 1, tokens / 64 / 32, hits), false);
    }
    return static_cast<double>(timeline.selected()) * kNsOfCycle / 1000;
  };
  CHECK(microseconds(64 << 10) <= 60);
  CHECK(microseconds(1 << 20) <= 800);
  CHECK(microseconds(1 << 20) >= 700);
}

TEST_CASE("groups beyond a pass and few scorers bound a scan") {
  const LaneWork lane = {.pages = 100, .beats = 1900, .list_beats = 7};
  ScanJob job;
  job.group = 4;
  ScanCycles cycles = ScanTime(job, Full(), lane);
  CHECK(cycles.total == cycles.memory);
  CHECK(cycles.stall_memory == cycles.total - 1900);
  // 32 beats of planes and one cycle more a pass; two segments' tables take 33.
  job.group = 8;
  job.passes = 2;
  job.planes = 4;
  cycles = ScanTime(job, Full(), lane);
  CHECK(cycles.total == 2 * 100 * 33);
  CHECK(cycles.stall_memory == 0);
  job.group = 16;
  job.passes = 4;
  CHECK(ScanTime(job, Full(), lane).total == 4 * 100 * 33);
  job.vector_log2 = 7;
  job.planes = 1;
  CHECK(ScanTime(job, Full(), lane).total == 4 * 100 * 33);
  job.vector_log2 = 6;
  job.planes = 1;
  Shape slow = Full();
  slow.scores = 4;
  cycles = ScanTime(job, slow, lane);
  CHECK(cycles.total == 100 * 64 * 4);
  CHECK(cycles.stall_scorers == 100 * 4 * (64 - 17));
}

TEST_CASE("a scan overlaps the selection before it") {
  Timeline timeline(100);
  const SelectCycles quick = {.sweep = 200, .collect = 100, .lanes = 100};
  timeline.Add(1000, quick, false);
  CHECK(timeline.scanned() == 1100);
  CHECK(timeline.selected() == 1400);
  timeline.Add(1000, quick, false);
  CHECK(timeline.scanned() == 2100);
  CHECK(timeline.selected() == 2400);
  timeline.Add(1000, quick, true);  // waits for the list
  CHECK(timeline.scanned() == 3400);
  CHECK(timeline.bank_wait() == 0);
  Timeline slow(0);
  for (int n = 0; n < 4; ++n) {
    slow.Add(100, {.sweep = 800, .collect = 200, .lanes = 200}, false);
  }
  CHECK(slow.selected() == 100 + 4 * 800 + 200);  // hits are collected while the next job is swept
  CHECK(slow.scanned() == 1900);                  // the third and the fourth wait for a bank
  CHECK(slow.bank_wait() == 1500);
  Timeline collector(0);
  for (int n = 0; n < 4; ++n) {
    collector.Add(100, {.sweep = 200, .collect = 800, .hits = 700, .lanes = 50}, false);
  }
  // The lanes are ahead of the collector.
  CHECK(collector.selected() == 100 + 200 + 800 + 3 * (kNextCycles + 700));
  Timeline lists(0);
  for (int n = 0; n < 4; ++n) {
    lists.Add(100, {.sweep = 200, .collect = 800, .hits = 700, .lanes = 50, .alone = true}, false);
  }
  CHECK(lists.selected() == 100 + 200 + 4 * 800);
}

TEST_CASE("a scan of both banks waits for all selections, and the next scan for its own") {
  const SelectCycles select = {.sweep = 500, .collect = 100, .lanes = 100};
  Timeline timeline(0);
  timeline.Add(100, select, false);
  CHECK(timeline.selected() == 700);
  timeline.Add(100, select, false, true);
  CHECK(timeline.scanned() == 700);  // not before the first job's bank is free
  CHECK(timeline.bank_wait() == 500);
  CHECK(timeline.selected() == 1300);
  timeline.Add(100, select, false);
  CHECK(timeline.scanned() == 1300);
  CHECK(timeline.selected() == 1900);
}

// A weighted sum is one job for the watchdog, and has the pages that both banks have words for.
TEST_CASE("the longest weighted sum takes fewer cycles than a job may") {
  layout::Descriptor d{};
  d.format = layout::kFormatCodes8;
  d.group = 1;
  d.end = 1;
  for (uint32_t dim = layout::kMinDim; dim <= layout::kCardMaxDim; dim *= 2) {
    layout::CardIndex index{};
    index.heads = 1;
    index.dim = static_cast<uint16_t>(dim);
    const uint64_t pages = uint64_t{2} * Full().bank_words / 8 * Full().channels;
    uint64_t cycles = 0;
    for (const Part part : {Part::kTokens, Part::kBases}) {
      cycles += ValuesTime(ValueJobOf(d, index, Full(), 0, part), pages);
    }
    cycles *= dim / SumDims(Full(), dim);
    CHECK(cycles < CardDriverOptions{}.watchdog_cycles);
  }
}

}  // namespace
}  // namespace mnemo::card::model
