#include "fpga/report/estimate.h"

#include <algorithm>
#include <cmath>

#include "fpga/card/model/command_model.h"
#include "fpga/card/model/timing.h"
#include "proto/layout/card.h"
#include "proto/layout/record.h"

namespace mnemo::card::report {
namespace {

constexpr double kModelClockMhz = 250;  // that timing.h has the channels' rate for

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

// Hits are taken to lie in all lanes and pages alike, or side by side.
model::HitWork HitsOf(const model::SelectJob& job, uint64_t all_pages, uint32_t channels, Order order) {
  const uint64_t count = std::min(uint64_t{job.k}, all_pages * job.entries);
  const uint64_t pages = order == Order::kRandom ? all_pages : Ceiling(count, job.entries);
  if (pages < channels) {
    channels = static_cast<uint32_t>(pages);
  }
  const uint64_t of_page = Ceiling(count, pages);
  return {.of_lane = Ceiling(count, channels),
          .lines = job.to_list ? 0 : Ceiling(count, 16),
          .groups = std::min(count, pages * Ceiling(of_page, 8))};
}

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

  const model::ScanCycles at_model_clock = model::ScanTime(scan, shape, lane);
  const double memory = static_cast<double>(at_model_clock.memory) * clock_mhz / kModelClockMhz;
  const auto reader = static_cast<uint64_t>(std::ceil(memory));
  const uint64_t scan_cycles = std::max({reader, at_model_clock.passes, at_model_clock.scorers});
  const model::SelectCycles select_cycles = model::SelectTime(
      select, scan.passes, lane.pages, HitsOf(select, pages, shape.channels, workload.order));

  const auto period = static_cast<uint32_t>(std::lround(256 * 1000 / clock_mhz));
  model::Timeline timeline(model::FetchTime(period) + model::LoadTime(period));
  for (uint32_t head = 0; head < workload.heads; ++head) timeline.Add(scan_cycles, select_cycles, false);

  Estimate estimate;
  estimate.scan_us = static_cast<double>(scan_cycles) / clock_mhz;
  estimate.select_us = static_cast<double>(select_cycles.total()) / clock_mhz;
  estimate.us = workload.measure == Measure::kScan
                    ? estimate.scan_us
                    : static_cast<double>(timeline.selected() + 2 * model::WriteTime(period)) / clock_mhz;
  estimate.reader_share = static_cast<double>(reader) / static_cast<double>(scan_cycles);
  estimate.bytes = workload.heads * pages * beats * layout::kCardBeatBytes;
  return estimate;
}

}  // namespace mnemo::card::report
