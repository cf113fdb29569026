#include "fpga/card/card_counters.h"

#include <string_view>

namespace mnemo::card {
namespace {

struct Metric {
  uint32_t counter;
  std::string_view name;
  std::string_view label;
  std::string_view label_value;
  double unit = 1;  // of the metric, in a count
};

constexpr Metric kCardMetrics[] = {
    {layout::kCardCyclesTotal, "device_cycles_total", {}, {}},
    {layout::kCardCyclesBusy, "device_busy_cycles_total", {}, {}},
    {layout::kCardDescriptors, "device_descriptors_total", {}, {}},
    {layout::kCardRefused, "device_refused_total", {}, {}},
    {layout::kCardJobs, "device_jobs_total", {}, {}},
    {layout::kCardHostBytesRead, "device_host_bytes_total", "direction", "read"},
    {layout::kCardHostBytesWritten, "device_host_bytes_total", "direction", "written"},
    {layout::kCardStallResults, "device_result_stall_cycles_total", {}, {}},
    {layout::kCardQueueDepth, "device_queue_depth", {}, {}},
};
static_assert(std::size(kCardMetrics) == layout::kCardCounters);

constexpr Metric kLaneMetrics[] = {
    {layout::kCardLaneBeats, "device_channel_beats_total", {}, {}},
    {layout::kCardLaneBeats, "device_channel_bytes_total", {}, {}, layout::kCardBeatBytes},
    {layout::kCardLaneStallMemory, "device_channel_stall_cycles_total", "cause", "memory"},
    {layout::kCardLaneStallTables, "device_channel_stall_cycles_total", "cause", "tables"},
    {layout::kCardLaneStallScorers, "device_channel_stall_cycles_total", "cause", "scorers"},
    {layout::kCardLaneStallBank, "device_channel_stall_cycles_total", "cause", "bank"},
    {layout::kCardLaneBusy, "device_channel_busy_cycles_total", {}, {}},
};
static_assert(std::size(kLaneMetrics) == layout::kCardLaneCounters + 1);  // beats twice

memory_device::DeviceCounter Counter(const Metric& metric, int channel, uint64_t count) {
  return {.name = metric.name,
          .channel = channel,
          .label = metric.label,
          .label_value = metric.label_value,
          .value = metric.unit * static_cast<double>(count)};
}

}  // namespace

std::vector<memory_device::DeviceCounter> DeviceCounters(const CardCounts& counts,
                                                         std::span<const LaneCounts> lanes) {
  std::vector<memory_device::DeviceCounter> counters;
  for (const Metric& metric : kCardMetrics) counters.push_back(Counter(metric, -1, counts[metric.counter]));
  for (size_t channel = 0; channel < lanes.size(); ++channel) {
    for (const Metric& metric : kLaneMetrics) {
      counters.push_back(Counter(metric, static_cast<int>(channel), lanes[channel][metric.counter]));
    }
  }
  return counters;
}

}  // namespace mnemo::card
