#include "server/frontend/memory_metrics.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "server/memory/step_stats.h"
#include "server/telemetry/metric_table.h"

namespace mnemo::frontend {
namespace {

using telemetry::ForeignFamily;
using telemetry::ForeignHistogram;

constexpr double kSecondsPerNs = 1e-9;

// `scale` turns the worker's unit into that of the metric.
template <typename Bounds>
ForeignHistogram ToHistogram(const internal::v1::Histogram& from, const Bounds& bounds, double scale) {
  ForeignHistogram histogram;
  for (const uint64_t bound : bounds) histogram.bounds.push_back(static_cast<double>(bound) * scale);
  histogram.buckets.assign(from.buckets().begin(), from.buckets().end());
  histogram.buckets.resize(bounds.size() + 1);
  histogram.sum = static_cast<double>(from.sum()) * scale;
  return histogram;
}

const char* StepName(int step) {
  constexpr const char* kNames[] = {"unknown", "prepare", "relevancy", "retrieval", "apply"};
  return kNames[step >= 1 && step <= 4 ? step : 0];
}

struct Families {
  ForeignFamily step_seconds{"mnemo_memory_step_seconds"};
  ForeignFamily step_bytes{"mnemo_memory_step_bytes_total"};
  ForeignFamily round_trips{"mnemo_memory_round_trip_seconds"};
  ForeignFamily bytes{"mnemo_memory_bytes_total"};
  ForeignFamily selected{"mnemo_memory_selected_tokens"};
  ForeignFamily hot{"mnemo_memory_hot_tokens_total"};
  ForeignFamily resident{"mnemo_memory_resident_pages"};
  ForeignFamily fallbacks{"mnemo_memory_fallbacks_total"};
  ForeignFamily attached{"mnemo_memory_service_attached"};
  ForeignFamily indexes{"mnemo_memory_indexes"};
  ForeignFamily index_bytes{"mnemo_memory_index_bytes"};
  ForeignFamily limit{"mnemo_memory_service_limit_bytes"};
  ForeignFamily ready{"mnemo_memory_service_ready"};
  ForeignFamily simulated{"mnemo_memory_service_simulated"};
  ForeignFamily restarts{"mnemo_memory_service_restarts_total"};
};

void AddWorker(const dispatch::WorkerSnapshot& worker, Families* families) {
  const internal::v1::MemoryFigures& memory = worker.heartbeat.memory();
  const std::pair<std::string, std::string> label{"worker", worker.name};
  for (const internal::v1::MemoryStepTotal& step : memory.steps()) {
    const std::vector<std::pair<std::string, std::string>> labels = {label,
                                                                     {"method", step.total().method()},
                                                                     {"step", StepName(step.total().step())},
                                                                     {"device", step.total().device()}};
    families->step_seconds.samples.push_back(
        {labels, 0, ToHistogram(step.times(), memory::kDurationBoundsNs, kSecondsPerNs)});
    families->step_bytes.samples.push_back({labels, static_cast<double>(step.total().bytes_moved())});
  }
  families->round_trips.samples.push_back(
      {{label}, 0, ToHistogram(memory.round_trips(), memory::kDurationBoundsNs, kSecondsPerNs)});
  families->selected.samples.push_back(
      {{label}, 0, ToHistogram(memory.selected_tokens(), memory::kTokenBounds, 1)});
  families->bytes.samples.push_back(
      {{label, {"direction", "to_service"}}, static_cast<double>(memory.bytes_to_service())});
  families->bytes.samples.push_back(
      {{label, {"direction", "from_service"}}, static_cast<double>(memory.bytes_from_service())});
  const uint64_t missed = memory.hot_missed_tokens();
  const uint64_t hit = memory.hot_selected_tokens() - std::min(missed, memory.hot_selected_tokens());
  families->hot.samples.push_back({{label, {"result", "hit"}}, static_cast<double>(hit)});
  families->hot.samples.push_back({{label, {"result", "miss"}}, static_cast<double>(missed)});
  families->resident.samples.push_back(
      {{label, {"state", "used"}}, static_cast<double>(memory.extra_pages_used())});
  families->resident.samples.push_back(
      {{label, {"state", "total"}}, static_cast<double>(memory.extra_pages_total())});
  // From 0, so that a rate sees the first of each reason. Workers of another version may have further
  // reasons.
  std::map<std::string, uint64_t> fallbacks(memory.fallbacks().begin(), memory.fallbacks().end());
  for (const std::string_view reason : memory::kFallbackReasons)
    fallbacks.try_emplace(std::string(reason), 0);
  for (const auto& [reason, count] : fallbacks) {
    families->fallbacks.samples.push_back({{label, {"reason", reason}}, static_cast<double>(count)});
  }
  // A worker that has no service to attach to misses none.
  if (worker.ready.has_memory_service()) {
    families->attached.samples.push_back({{label}, memory.service_attached() ? 1.0 : 0.0});
  }
  families->indexes.samples.push_back(
      {{{"place", worker.name}}, static_cast<double>(memory.inline_indexes())});
  families->index_bytes.samples.push_back(
      {{{"place", worker.name}}, static_cast<double>(memory.inline_bytes())});
}

void AddService(const dispatch::MemorySnapshot& service, Families* families) {
  const std::pair<std::string, std::string> label{"service", service.name};
  families->indexes.samples.push_back(
      {{{"place", service.name}}, static_cast<double>(service.stats.indexes())});
  families->ready.samples.push_back(
      {{label}, service.state == dispatch::WorkerSnapshot::State::kReady ? 1.0 : 0.0});
  // One that others run tells the rest on its own endpoint. What is not known is absent, and not 0.
  if (!service.is_child) return;
  families->index_bytes.samples.push_back(
      {{{"place", service.name}}, static_cast<double>(service.stats.used_bytes())});
  families->limit.samples.push_back({{label}, static_cast<double>(service.stats.memory_bytes())});
  families->simulated.samples.push_back({{label}, service.stats.simulated_time() ? 1.0 : 0.0});
  families->restarts.samples.push_back({{label}, static_cast<double>(service.restarts)});
}

// Families of what devices of services count themselves. A service of another version may tell of metrics
// that the table lacks.
std::vector<ForeignFamily> DeviceFamilies(const std::vector<dispatch::MemorySnapshot>& services) {
  std::vector<ForeignFamily> families;
  for (const telemetry::MetricInfo& metric : telemetry::DeviceMetrics()) {
    ForeignFamily family{std::string(metric.name)};
    for (const dispatch::MemorySnapshot& service : services) {
      for (const internal::v1::DeviceCounter& counter : service.stats.device_counters()) {
        if (counter.metric() != metric.name) continue;
        std::vector<std::pair<std::string, std::string>> labels = {{"device", service.stats.device()}};
        labels.insert(labels.end(), counter.labels().begin(), counter.labels().end());
        std::sort(labels.begin() + 1, labels.end());
        family.samples.push_back({std::move(labels), counter.value()});
      }
    }
    if (!family.samples.empty()) families.push_back(std::move(family));
  }
  return families;
}

}  // namespace

std::vector<ForeignFamily> MemoryFamilies(const std::vector<dispatch::WorkerSnapshot>& workers,
                                          const std::vector<dispatch::MemorySnapshot>& services) {
  Families families;
  for (const dispatch::WorkerSnapshot& worker : workers) AddWorker(worker, &families);
  for (const dispatch::MemorySnapshot& service : services) AddService(service, &families);
  std::vector<ForeignFamily> all = {families.step_seconds, families.step_bytes,  families.round_trips,
                                    families.bytes,        families.selected,    families.hot,
                                    families.resident,     families.fallbacks,   families.attached,
                                    families.indexes,      families.index_bytes, families.limit,
                                    families.ready,        families.simulated,   families.restarts};
  for (ForeignFamily& family : DeviceFamilies(services)) all.push_back(std::move(family));
  return all;
}

}  // namespace mnemo::frontend
