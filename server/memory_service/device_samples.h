#pragma once

// Figures that a memory device counts itself, as samples of metrics: for the service's own endpoint and for
// mnemod's.

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/memory/memory_device.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service {

struct DeviceSample {
  std::string metric;                                       // one of telemetry::DeviceMetrics
  std::vector<std::pair<std::string, std::string>> labels;  // without "device"
  double value = 0;
};

// `counters`: the plane's DeviceCounters or LastDeviceCounters. The samples of a metric follow each other.
std::vector<DeviceSample> DeviceSamples(const DataPlane& plane,
                                        std::span<const memory_device::DeviceCounter> counters);

}  // namespace mnemo::memory_service
