#include "fpga/card/card_counters.h"

#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>

namespace mnemo::card {
namespace {

using memory_device::DeviceCounter;

std::string Key(const DeviceCounter& counter) {
  return std::string(counter.name) + "/" + std::to_string(counter.channel) + "/" +
         std::string(counter.label_value);
}

TEST_CASE("every counter of a card has a figure of its own, with its channel and cause") {
  CardCounts counts;
  for (uint32_t n = 0; n < counts.size(); ++n) counts[n] = 100 + n;
  std::vector<LaneCounts> lanes(2);
  for (uint32_t lane = 0; lane < 2; ++lane) {
    for (uint32_t n = 0; n < lanes[lane].size(); ++n) lanes[lane][n] = 1000 * (lane + 1) + n;
  }
  std::map<std::string, double> values;
  std::set<uint64_t> seen;
  for (const DeviceCounter& counter : DeviceCounters(counts, lanes)) {
    CHECK(counter.label.empty() == counter.label_value.empty());
    CHECK(values.emplace(Key(counter), counter.value).second);
    seen.insert(static_cast<uint64_t>(counter.value));
  }
  for (const uint64_t count : counts) CHECK(seen.contains(count));
  for (const LaneCounts& lane : lanes) {
    for (const uint64_t count : lane) CHECK(seen.contains(count));
  }
  CHECK(values.at("device_host_bytes_total/-1/written") == 100 + layout::kCardHostBytesWritten);
  CHECK(values.at("device_queue_depth/-1/") == 100 + layout::kCardQueueDepth);
  CHECK(values.at("device_channel_beats_total/1/") == 2000 + layout::kCardLaneBeats);
  CHECK(values.at("device_channel_bytes_total/1/") == 64 * (2000 + layout::kCardLaneBeats));
  CHECK(values.at("device_channel_stall_cycles_total/0/bank") == 1000 + layout::kCardLaneStallBank);
}

}  // namespace
}  // namespace mnemo::card
