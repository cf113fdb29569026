#include "fpga/card/model/timing.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "fpga/card/model/lane_model.h"
#include "fpga/card/model/select_model.h"
#include "proto/layout/record.h"

namespace mnemo::card::model {
namespace {

constexpr uint64_t kRateOf = 64;  // a lane gets kRate of kRateOf beats a cycle of kDefaultPeriod
constexpr uint64_t kRate = 53;
constexpr uint64_t kItemCycles = 1;  // between the passes of a page
constexpr uint64_t kSegmentElements = 64;
constexpr uint64_t kSegmentCycles = 16;  // of a segment's tables
constexpr uint64_t kTableCycles = 1;     // from one pass' tables to those of the next one
constexpr uint64_t kTableBanks = 2;
constexpr uint64_t kEntriesOfWord = 8;
constexpr uint64_t kRanksOfCycle = 16;
constexpr uint64_t kSweepLatency = 31;  // of a sweep and of its figures' way through all lanes
constexpr uint64_t kFoundCycles = 7;  // of them, those that a digit is found before its last counter is read
constexpr uint64_t kAskCycles = 25;   // for candidates, and for the largest scores, a cycle a query
constexpr uint64_t kCollectCycles = 42;  // from the last rank to the first hit, and to the last one's beat
constexpr uint64_t kLaneCycles = 28;     // from the last rank until a lane's hits are found, beside them
constexpr uint64_t kHitsAhead = 192;     // of a lane, that wait for the collector
constexpr uint64_t kExp2WordCycles = 8;  // a word of scores
constexpr uint64_t kHitsOfGroup = 8;
constexpr uint64_t kIdsOfLine = 16;
constexpr uint64_t kCyclesOf8Lines = 17;  // measured over the simulated host port
constexpr uint64_t kBufferCycles = 256;   // of beats that a lane reads before its scores have a bank
constexpr uint64_t kFetchCycles = 60;     // of the command processor, beside host memory's latency
constexpr uint64_t kLoadCycles = 85;      // of queries, tables and the first burst
constexpr uint64_t kFinishCycles = 8;  // from the last response of results to the completion, and to the head

uint64_t Ceiling(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

uint64_t PeriodOf(uint32_t period) { return period == 0 ? kDefaultPeriod : period; }

uint64_t HitsOfGroup(const SelectJob& job) { return job.exp2 || job.relu ? kHitsOfGroup / 2 : kHitsOfGroup; }

// Cycles of one pass over a page. Planes alone go through once a pass; what else a block has is read once.
uint64_t PassTime(const ScanJob& job) {
  const uint64_t planes = uint64_t{PlaneBeats(job)} * job.planes + kItemCycles;
  // With more passes than banks tables are built anew for each, beside the pass before it.
  const uint64_t segments = (uint64_t{1} << job.vector_log2) / kSegmentElements;
  const uint64_t tables = job.passes > kTableBanks ? kSegmentCycles * segments + kTableCycles : 0;
  return std::max(planes, tables);
}

}  // namespace

ScanCycles ScanTime(const ScanJob& job, const Shape& shape, const LaneWork& lane, uint32_t period) {
  ScanCycles cycles;
  const uint64_t vectors = job.fold ? static_cast<uint32_t>(layout::kPageParts) : EntriesOfPage(job);
  const uint64_t scores = lane.pages * vectors * job.passes * shape.queries;
  cycles.memory =
      Ceiling((lane.beats + lane.list_beats) * kRateOf * kDefaultPeriod, kRate * PeriodOf(period));
  cycles.passes = lane.pages * job.passes * PassTime(job);
  cycles.scorers = Ceiling(scores, shape.scores);
  cycles.total = std::max({cycles.memory, cycles.passes, cycles.scorers});
  if (cycles.total == cycles.memory) {
    cycles.stall_memory = cycles.total - std::min(cycles.total, lane.beats);
  } else if (cycles.total == cycles.scorers) {
    cycles.stall_scorers = cycles.total - std::min(cycles.total, cycles.passes);
  }
  return cycles;
}

HitWork HitWorkOf(const SelectJob& job, const Hits& hits, uint32_t channels) {
  const uint64_t of_group = HitsOfGroup(job);
  std::vector<uint64_t> lanes(channels);
  HitWork work;
  const auto add = [&](uint32_t page, uint64_t count) {
    lanes[page % channels] += count;
    work.groups += Ceiling(count, of_group);
  };
  // Hits among maxima are pages, of which a list has all entries.
  for (const ListEntry& page : hits.list) add(page.page, job.maxima ? 1 : std::popcount(page.mask));
  for (size_t first = 0, end = 0; first < hits.ids.size(); first = end) {
    const uint32_t page = hits.ids[first] / job.entries;
    while (end < hits.ids.size() && hits.ids[end] / job.entries == page) ++end;
    add(page + job.shift, end - first);
  }
  work.lines = Ceiling(hits.ids.size(), kIdsOfLine);
  work.of_lane = *std::max_element(lanes.begin(), lanes.end());
  return work;
}

HitWork EvenHitWork(const SelectJob& job, uint64_t pages, uint32_t channels) {
  const uint64_t count = std::min(uint64_t{job.k}, pages * job.entries);
  // The last group of a page is half full.
  return {.of_lane = Ceiling(count, channels),
          .lines = job.to_list ? 0 : Ceiling(count, kIdsOfLine),
          .groups = std::min(count, Ceiling(count, HitsOfGroup(job)) + Ceiling(pages, 2))};
}

SelectCycles SelectTime(const SelectJob& job, uint32_t passes, uint64_t pages, const HitWork& hits) {
  if (job.measured) return {.sweep = kSweepLatency};
  const uint64_t digits = DigitsOf(job);
  // Lanes make the ranks of weighted ReLU and of a long scan's second job as scores come. Of a page's maxima
  // there is one entry a page.
  const uint64_t page_words = Ceiling(job.entries, kEntriesOfWord);
  const uint64_t words = job.relu || job.kept ? 0
                         : job.maxima         ? Ceiling(pages, kEntriesOfWord) * passes
                                              : pages * page_words * passes;
  // A page of a long scan's second job takes the room of 16 ranks.
  const uint64_t of_page = job.kept ? std::max<uint64_t>(job.entries, kRanksOfCycle) : job.entries;
  const uint64_t ranks = pages * (job.maxima ? 1 : of_page);
  const bool wide = job.exp2 || job.relu;
  const uint64_t ranks_of_cycle = wide ? kRanksOfCycle / 2 : kRanksOfCycle;
  // Entries that reach a bound are counted digit by digit too.
  const uint64_t bound_digits = !job.bounded ? 0 : wide ? 8 : 4;
  // The first sweep is over the scores, the others over the ranks.
  const uint64_t sweeps = digits + bound_digits;
  const uint64_t of_ranks = sweeps - (job.relu || job.kept ? 0 : 1);
  SelectCycles cycles;
  cycles.sweep = kAskCycles + job.group + words * (job.exp2 ? kExp2WordCycles : 1) +
                 of_ranks * Ceiling(ranks, ranks_of_cycle) + sweeps * kSweepLatency - digits * kFoundCycles;
  const uint64_t of_lane = std::max(Ceiling(ranks, ranks_of_cycle), hits.of_lane);
  cycles.hits = std::max({of_lane, hits.groups, Ceiling(hits.lines * kCyclesOf8Lines, 8)});
  cycles.collect = kCollectCycles + cycles.hits;
  cycles.lanes = hits.of_lane > kHitsAhead ? cycles.collect : kLaneCycles + of_lane;
  cycles.alone = job.to_list;
  return cycles;
}

uint64_t ValuesTime(const ScanJob& job, uint64_t pages) {
  const uint64_t of_pass = std::max(uint64_t{job.first_beats}, uint64_t{layout::kPageTokens});
  return pages * (of_pass * job.passes + kSweepLatency);
}

uint64_t HostLatency(uint32_t period) { return kHostLatencyNs * 256 / PeriodOf(period); }

uint64_t FetchTime(uint32_t period, bool place_known) {
  return kFetchCycles + (place_known ? 2 : 3) * HostLatency(period);
}
uint64_t LoadTime(uint32_t period, bool queries_early) {
  return kLoadCycles + (queries_early ? 0 : HostLatency(period));
}
uint64_t WriteTime(uint32_t period) { return HostLatency(period) * 11 / 19; }
uint64_t CompletionTime(uint32_t period) { return WriteTime(period) + kFinishCycles; }
uint64_t HeadTime(uint32_t period) { return WriteTime(period) + kFinishCycles; }

uint64_t Timeline::Add(uint64_t scan, SelectCycles select, bool listed, bool both) {
  const uint64_t ready = listed ? std::max(scanned_, selected_) : scanned_;
  const uint64_t start = std::max(ready + kBufferCycles, freed_before_) - kBufferCycles;
  scanned_ = std::max(start + scan, both ? freed_ : freed_before_);
  bank_wait_ += scanned_ - ready - scan;
  // Ranks wait until the lanes have found the hits before them, with lists until these are collected.
  const uint64_t ranked = std::max(scanned_, swept_) + select.sweep;
  swept_ = std::max(ranked, listed || select.alone || alone_ ? selected_ : freed_);
  freed_before_ = freed_;
  freed_ = swept_ + select.lanes;
  selected_ = std::max(swept_ + select.collect, selected_ + kNextCycles + select.hits);
  alone_ = listed || select.alone;
  if (both) freed_before_ = freed_;
  return scan + select.total();
}

}  // namespace mnemo::card::model
