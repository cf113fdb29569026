#include "server/memory_service/device_samples.h"

#include <algorithm>

#include "server/memory_service/plane_stats.h"

namespace mnemo::memory_service {
namespace {

constexpr char kPrefix[] = "mnemo_memory_service_";
constexpr double kJoulesPerUj = 1e-6;

}  // namespace

std::vector<DeviceSample> DeviceSamples(const DataPlane& plane,
                                        std::span<const memory_device::DeviceCounter> counters) {
  std::vector<DeviceSample> samples;
  if (!plane.energy_source().empty()) {
    const uint64_t uj = plane.counters().energy_uj.load(std::memory_order_relaxed);
    samples.push_back({std::string(kPrefix) + "energy_joules_total",
                       {{"source", plane.energy_source()}},
                       static_cast<double>(uj) * kJoulesPerUj});
  }
  for (const memory_device::DeviceCounter& counter : counters) {
    DeviceSample& sample = samples.emplace_back();
    sample.metric = kPrefix + std::string(counter.name);
    if (counter.channel >= 0) sample.labels.emplace_back("channel", std::to_string(counter.channel));
    if (!counter.label.empty()) sample.labels.emplace_back(counter.label, counter.label_value);
    sample.value = counter.value;
  }
  std::stable_sort(samples.begin(), samples.end(),
                   [](const DeviceSample& a, const DeviceSample& b) { return a.metric < b.metric; });
  return samples;
}

}  // namespace mnemo::memory_service
