// The table of all metrics of mnemod and mnemo-memory. docs/METRICS.md and the page mnemo-metrics(7) are made
// from it.
#pragma once

#include <span>
#include <string_view>

namespace mnemo::telemetry {

enum class MetricType { kCounter, kGauge, kHistogram };

// From when on a metric has samples.
enum class MetricPresence {
  kStart,
  // A worker has been ready.
  kWorker,
  // A memory service is known to mnemod.
  kService,
  // mnemod has started a memory service.
  kOwnService,
  // A request with sparse attention has run.
  kSparse,
  // A device has a meter or figures of a model.
  kMeter,
  // A device has been measured for an interval, after kMeter.
  kMeasured,
  // A request with energy has ended.
  kRequestEnergy,
  // A worker has attached to the memory service.
  kAttached,
  // A worker has sent the memory service an operation.
  kOperation,
  // The service's device counts its own work, as a card does.
  kCounters,
};

struct MetricInfo {
  // As scraped, without the endings _bucket, _sum and _count of a histogram.
  std::string_view name;
  MetricType type = MetricType::kGauge;
  // Names of labels, separated by one blank.
  std::string_view labels;
  // Subject of the count or measurement; the end of the name is its unit.
  std::string_view help;
  MetricPresence presence = MetricPresence::kStart;
};

// Metrics on server.metrics_listen of mnemod, and on --metrics-listen of mnemo-memory. They live as long as
// the program.
std::span<const MetricInfo> DaemonMetrics();
std::span<const MetricInfo> MemoryServiceMetrics();
// Those of memory devices that count their own work, in both of these: mnemod tells them of its services.
std::span<const MetricInfo> DeviceMetrics();

// Returns the table's entry. `name` has to be in one of the tables. Any thread, does not block.
const MetricInfo& FindMetric(std::string_view name);

}  // namespace mnemo::telemetry
