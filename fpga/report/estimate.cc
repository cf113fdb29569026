#include "fpga/report/estimate.h"

#include <algorithm>
#include <cmath>

#include "fpga/card/model/command_model.h"
#include "fpga/card/model/timing.h"
#include "proto/layout/card.h"
#include "proto/layout/record.h"

namespace mnemo::card::report {
namespace {

layout::CardIndex IndexOf(const Workload& workload) {
  layout::CardIndex index{};
  index.exists = 1;
  index.record_format = workload.format;
  index.layer_slots = 1;
  index.heads = static_cast<uint16_t>(workload.heads);
  index.dim = static_cast<uint16_t>(workload.dim);
  index.max_tokens = workload.tokens;
  index.block_beats = layout::CardBlockOf(workload.format, workload.dim).beats;
  return index;
}

uint64_t Ceiling(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

Estimate EstimateOf(const Workload& workload, const model::Shape& shape, double clock_mhz) {
  const layout::Descriptor d = DescriptorOf(workload);
  const layout::CardIndex index = IndexOf(workload);
  const model::Stage stage = workload.sign_stage ? model::Stage::kFirst : model::Stage::kOnly;
  const model::ScanJob scan = model::ScanJobOf(d, index, shape, 0, stage);
  const model::SelectJob select = model::SelectJobOf(d, index, stage);

  const uint64_t pages = Ceiling(workload.tokens, layout::kPageTokens);
  const uint64_t beats = scan.first_beats + scan.second_beats;
  model::LaneWork lane;  // the fullest
  lane.pages = Ceiling(pages, shape.channels);
  lane.beats = lane.pages * beats;
  lane.list_beats = Ceiling(lane.pages, layout::kCardListRowsOfBeat);

  const auto period = static_cast<uint32_t>(std::lround(256 * 1000 / clock_mhz));
  const model::ScanCycles scan_cycles = model::ScanTime(scan, shape, lane, period);
  // Hits are taken to lie in all lanes and pages alike, or side by side.
  const uint64_t hits = std::min(uint64_t{select.k}, pages * select.entries);
  const uint64_t hit_pages = workload.order == Order::kRandom ? pages : Ceiling(hits, select.entries);
  const auto hit_lanes = static_cast<uint32_t>(std::min<uint64_t>(hit_pages, shape.channels));
  const model::SelectCycles select_cycles =
      model::SelectTime(select, scan.passes, lane.pages, model::EvenHitWork(select, hit_pages, hit_lanes));

  model::Timeline timeline(model::FetchTime(period, true) + model::LoadTime(period, true));
  for (uint32_t head = 0; head < workload.heads; ++head)
    timeline.Add(scan_cycles.total, select_cycles, false);
  const uint64_t whole = timeline.selected() + model::WriteTime(period) + model::CompletionTime(period);

  // By the period, as in completions.
  const auto microseconds = [period](uint64_t cycles) {
    return static_cast<double>(cycles) * period / 256'000;
  };
  Estimate estimate;
  estimate.scan_us = microseconds(scan_cycles.total);
  estimate.select_us = microseconds(select_cycles.total());
  estimate.us = microseconds(workload.measure == Measure::kScan ? scan_cycles.total : whole);
  estimate.reader_share = static_cast<double>(scan_cycles.memory) / static_cast<double>(scan_cycles.total);
  estimate.bytes = workload.heads * pages * beats * layout::kCardBeatBytes;
  return estimate;
}

}  // namespace mnemo::card::report
