#include "server/memory_service/metrics_endpoint.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <mutex>
#include <utility>
#include <vector>

#include "server/memory_service/device_samples.h"
#include "server/telemetry/logging.h"
#include "server/telemetry/metric_table.h"

namespace mnemo::memory_service {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;
using Label = prometheus::ClientMetric::Label;

constexpr double kSecondsPerNs = 1e-9;

// Names for labels; an operation that there is not is "unknown".
const char* OpName(int op) {
  switch (op) {
    case layout::kOpCreate:
      return "create";
    case layout::kOpAppend:
      return "append";
    case layout::kOpFork:
      return "fork";
    case layout::kOpTruncate:
      return "truncate";
    case layout::kOpFree:
      return "free";
    case layout::kOpKvStore:
      return "kv_store";
    case layout::kOpScoreSelect:
      return "score_select";
    case layout::kOpGather:
      return "gather";
    case layout::kOpScoreGather:
      return "score_gather";
    default:
      return "unknown";
  }
}

const char* StatusName(int status) {
  constexpr const char* kNames[kStatuses] = {
      "ok",          "bad_field",  "bad_sequence", "stale_epoch", "unknown_index", "stale_generation",
      "unsupported", "bad_region", "bad_payload",  "full",        "draining",      "device_failed"};
  return kNames[status];
}

MetricFamily NewFamily(const telemetry::MetricInfo& metric) {
  const bool is_counter = metric.type == telemetry::MetricType::kCounter;
  return {std::string(metric.name),
          std::string(metric.help),
          is_counter ? MetricType::Counter : MetricType::Gauge,
          {}};
}

// Type and help are those of the table.
MetricFamily NewFamily(const std::string& name) {
  return NewFamily(telemetry::FindMetric("mnemo_memory_service_" + name));
}

void AddValue(MetricFamily& family, std::vector<Label> labels, double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

double Of(const Counter& counter) { return static_cast<double>(counter.load(std::memory_order_relaxed)); }

void CollectWork(const PlaneCounters& counters, const std::string& device, std::vector<MetricFamily>& out) {
  MetricFamily operations = NewFamily("operations_total");
  for (int op = 0; op < kOps; ++op) {
    for (int status = 0; status < kStatuses; ++status) {
      const double count = Of(counters.operations[op][status]);
      // Once seen they stay; what never happened is left out.
      if (count == 0) continue;
      AddValue(operations, {{"device", device}, {"op", OpName(op)}, {"status", StatusName(status)}}, count);
    }
  }
  MetricFamily steps = NewFamily("step_seconds_total");
  const std::pair<const char*, const Counter*> times[] = {{"queue", &counters.queue_ns},
                                                          {"prepare", &counters.prepare_ns},
                                                          {"relevancy", &counters.score_ns},
                                                          {"retrieval", &counters.select_ns},
                                                          {"gather", &counters.gather_ns}};
  for (const auto& [step, ns] : times) {
    AddValue(steps, {{"device", device}, {"step", step}}, Of(*ns) * kSecondsPerNs);
  }
  MetricFamily bytes = NewFamily("bytes_total");
  AddValue(bytes, {{"device", device}, {"direction", "read"}}, Of(counters.bytes_read));
  AddValue(bytes, {{"device", device}, {"direction", "written"}}, Of(counters.bytes_written));
  MetricFamily batches = NewFamily("batches_total");
  AddValue(batches, {{"device", device}}, Of(counters.batches));
  MetricFamily sleeps = NewFamily("sleeps_total");
  AddValue(sleeps, {{"device", device}}, Of(counters.sleeps));
  MetricFamily failures = NewFamily("device_failures_total");
  AddValue(failures, {{"device", device}}, Of(counters.device_failures));
  for (MetricFamily* family : {&operations, &steps, &bytes, &batches, &sleeps, &failures}) {
    out.push_back(std::move(*family));
  }
}

// Figures that the device counts itself.
void CollectDevice(const DataPlane& plane, const std::string& device, std::vector<MetricFamily>& out) {
  MetricFamily info = NewFamily("device_info");
  AddValue(info,
           {{"device", device},
            {"kind", plane.options().device},
            {"time", plane.simulated_time() ? "simulated" : "real"}},
           1);
  out.push_back(std::move(info));
  for (DeviceSample& sample : DeviceSamples(plane, plane.DeviceCounters())) {
    if (out.back().name != sample.metric) out.push_back(NewFamily(telemetry::FindMetric(sample.metric)));
    std::vector<Label> labels = {{"device", device}};
    for (auto& [name, value] : sample.labels) labels.push_back({std::move(name), std::move(value)});
    AddValue(out.back(), std::move(labels), sample.value);
  }
}

std::vector<MetricFamily> CollectFrom(const DataPlane& plane) {
  std::vector<MetricFamily> out;
  const PlaneStats stats = plane.Stats();
  const std::string& device = stats.device_name;
  CollectWork(plane.counters(), device, out);
  CollectDevice(plane, device, out);
  const auto single = [&](const std::string& name, double value) {
    MetricFamily family = NewFamily(name);
    AddValue(family, {{"device", device}}, value);
    out.push_back(std::move(family));
  };
  single("capacity_bytes", static_cast<double>(stats.memory_bytes));
  single("draining", stats.draining ? 1 : 0);
  single("attachments_total", static_cast<double>(stats.attachments));
  single("lost_owners_total", static_cast<double>(stats.lost_owners));
  single("log_lines_dropped_total", static_cast<double>(telemetry::LogLinesDropped()));
  MetricFamily used = NewFamily("index_bytes");
  MetricFamily indexes = NewFamily("indexes");
  MetricFamily quota = NewFamily("quota_bytes");
  for (const OwnerStats& owner : stats.owners) {
    const std::vector<Label> labels = {
        {"device", device}, {"owner", owner.name}, {"epoch", std::to_string(owner.epoch)}};
    AddValue(used, labels, static_cast<double>(owner.used_bytes));
    AddValue(indexes, labels, owner.indexes);
    AddValue(quota, labels, static_cast<double>(owner.quota_bytes));
  }
  for (MetricFamily* family : {&used, &indexes, &quota}) out.push_back(std::move(*family));
  // A family without samples is not exposed.
  std::erase_if(out, [](const MetricFamily& family) { return family.metric.empty(); });
  return out;
}

struct Collector : prometheus::Collectable {
  explicit Collector(const DataPlane* of) : plane(of) {}
  std::vector<MetricFamily> Collect() const override {
    std::lock_guard lock(mutex);
    return plane != nullptr ? CollectFrom(*plane) : std::vector<MetricFamily>();
  }
  mutable std::mutex mutex;
  const DataPlane* plane;
};

}  // namespace

struct MetricsEndpoint::Impl {
  std::shared_ptr<Collector> collector;  // the exposer holds it by weak_ptr
  std::unique_ptr<prometheus::Exposer> exposer;
  int port = 0;
};

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MetricsEndpoint::~MetricsEndpoint() = default;

void MetricsEndpoint::LeaveToProcess(std::unique_ptr<MetricsEndpoint> endpoint) {
  if (endpoint == nullptr) return;
  {
    std::lock_guard lock(endpoint->impl_->collector->mutex);
    endpoint->impl_->collector->plane = nullptr;
  }
  static auto* const left = new std::vector<std::unique_ptr<MetricsEndpoint>>;
  left->push_back(std::move(endpoint));
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Create(const std::string& address,
                                                                         const DataPlane* plane) {
  auto impl = std::make_unique<Impl>();
  impl->collector = std::make_shared<Collector>(plane);
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(address, 1);
    const std::vector<int> ports = impl->exposer->GetListeningPorts();
    if (ports.empty()) return Unavailable("--metrics-listen: cannot listen on {}", address);
    impl->port = ports.front();
  } catch (const std::exception& error) {
    return Unavailable("--metrics-listen: cannot listen on {}: {}", address, error.what());
  }
  impl->exposer->RegisterCollectable(impl->collector);
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(impl)));
}

int MetricsEndpoint::port() const { return impl_->port; }

std::string MetricsEndpoint::Expose(const DataPlane& plane) {
  return prometheus::TextSerializer().Serialize(CollectFrom(plane));
}

}  // namespace mnemo::memory_service
