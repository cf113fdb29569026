#include "fpga/card/model/timing.h"

#include <algorithm>

#include "fpga/card/model/lane_model.h"
#include "fpga/card/model/select_model.h"
#include "proto/layout/record.h"

namespace mnemo::card::model {
namespace {

constexpr uint64_t kRateOf = 64;  // a lane gets kRate of kRateOf beats a cycle
constexpr uint64_t kRate = 53;
constexpr uint64_t kEntriesOfWord = 8;
constexpr uint64_t kRanksOfCycle = 16;
constexpr uint64_t kSweepLatency = 50;   // of a sweep and of its digit's way through all lanes
constexpr uint64_t kExp2WordCycles = 4;  // a word of scores
constexpr uint64_t kHitWordsOfCycle = 4;
constexpr uint64_t kIdsOfCycle = 16;

uint64_t Ceiling(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

ScanCycles ScanTime(const ScanJob& job, const Shape& shape, const LaneWork& lane) {
  ScanCycles cycles;
  const uint64_t vectors = job.fold ? static_cast<uint32_t>(layout::kPageParts) : EntriesOfPage(job);
  const uint64_t scores = lane.pages * vectors * job.passes * shape.queries;
  cycles.memory = Ceiling((lane.beats + lane.list_beats) * kRateOf, kRate);
  cycles.passes = lane.beats * job.passes;
  cycles.scorers = Ceiling(scores, shape.scores);
  cycles.total = std::max({cycles.memory, cycles.passes, cycles.scorers});
  if (cycles.total == cycles.memory) {
    cycles.stall_memory = cycles.total - std::min(cycles.total, lane.beats);
  } else if (cycles.total == cycles.scorers) {
    cycles.stall_scorers = cycles.total - std::min(cycles.total, cycles.passes);
  }
  return cycles;
}

uint64_t SelectTime(const SelectJob& job, uint32_t passes, uint64_t pages, const Hits& hits) {
  const uint64_t digits = DigitsOf(job);
  // Lanes make the ranks of weighted ReLU. Of a page's maxima there is one entry a page.
  const uint64_t page_words = Ceiling(job.entries, kEntriesOfWord);
  const uint64_t words = job.relu     ? 0
                         : job.maxima ? Ceiling(pages, kEntriesOfWord) * passes
                                      : pages * page_words * passes;
  const uint64_t ranks = pages * (job.maxima ? 1 : job.entries);
  const bool wide = job.exp2 || job.relu;
  const uint64_t ranks_of_cycle = wide ? kRanksOfCycle / 2 : kRanksOfCycle;
  // Entries that reach a bound are counted digit by digit too.
  const uint64_t bound_digits = !job.bounded ? 0 : wide ? 8 : 4;
  const uint64_t sweeps =
      words * (job.exp2 ? kExp2WordCycles : 1) + (digits + bound_digits) * Ceiling(ranks, ranks_of_cycle);
  const uint64_t collector =
      std::max(Ceiling(hits.words, kHitWordsOfCycle), Ceiling(hits.ids.size(), kIdsOfCycle));
  return sweeps + (1 + digits + bound_digits) * kSweepLatency + collector;
}

uint64_t ValuesTime(const ScanJob& job, uint64_t pages) {
  const uint64_t of_pass = std::max(uint64_t{job.first_beats}, uint64_t{layout::kPageTokens});
  return pages * (of_pass * job.passes + kSweepLatency);
}

uint64_t HostLatency(uint32_t period) {
  return kHostLatencyNs * 256 / (period == 0 ? kDefaultPeriod : period);
}

uint64_t Timeline::Add(uint64_t scan, uint64_t select, bool listed) {
  const uint64_t ready = listed ? std::max(scanned_, selected_) : scanned_;
  const uint64_t start = std::max(ready, selected_before_);
  bank_wait_ += start - ready;
  scanned_ = start + scan;
  selected_before_ = selected_;
  selected_ = std::max(scanned_, selected_) + select;
  return scan + select;
}

}  // namespace mnemo::card::model
