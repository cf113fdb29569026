#include "server/telemetry/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "server/telemetry/metric_table.h"

namespace mnemo::telemetry {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

// Upper bounds in seconds, about three per decade, from a tiny model to a long prompt.
const Histogram::BucketBoundaries kTokenGapBuckets = {
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5};
const Histogram::BucketBoundaries kRequestBuckets = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                                     1,     2,     5,     10,   20,   60,   120, 300};

double Seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

// Each name has to be in the table with that type.
std::string HelpOf(const std::string& name, MetricType type) {
  const MetricInfo& metric = FindMetric(name);
  MNEMO_CHECK(metric.type == type);
  return std::string(metric.help);
}
Family<Counter>& MakeCounters(Registry& registry, const std::string& name) {
  return prometheus::BuildCounter().Name(name).Help(HelpOf(name, MetricType::kCounter)).Register(registry);
}
Family<Gauge>& MakeGauges(Registry& registry, const std::string& name) {
  return prometheus::BuildGauge().Name(name).Help(HelpOf(name, MetricType::kGauge)).Register(registry);
}
Histogram& MakeHistogram(Registry& registry, const std::string& name,
                         const Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(HelpOf(name, MetricType::kHistogram))
      .Register(registry)
      .Add({}, buckets);
}

// A counter that is set to values from a source that never falls.
class ToldCounter {
 public:
  explicit ToldCounter(Counter& counter) : counter_(&counter) {}
  void Set(uint64_t value) {
    if (value <= last_) return;
    counter_->Increment(static_cast<double>(value - last_));
    last_ = value;
  }

 private:
  Counter* counter_;
  uint64_t last_ = 0;
};

// The exposer holds its collectables by weak_ptr; the object behind this one outlives the exposer.
struct Forward : prometheus::Collectable {
  explicit Forward(const prometheus::Collectable* collectable) : target(collectable) {}
  std::vector<prometheus::MetricFamily> Collect() const override { return target->Collect(); }
  const prometheus::Collectable* target;
};

prometheus::ClientMetric ToMetric(const ForeignSample& sample, MetricType type) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
  switch (type) {
    case MetricType::kCounter:
      metric.counter.value = sample.value;
      break;
    case MetricType::kGauge:
      metric.gauge.value = sample.value;
      break;
    case MetricType::kHistogram: {
      const ForeignHistogram& histogram = sample.histogram;
      uint64_t below = 0;
      for (size_t i = 0; i <= histogram.bounds.size(); ++i) {
        if (i < histogram.buckets.size()) below += histogram.buckets[i];
        const double bound =
            i < histogram.bounds.size() ? histogram.bounds[i] : std::numeric_limits<double>::infinity();
        metric.histogram.bucket.push_back({below, bound});
      }
      metric.histogram.sample_count = below;
      metric.histogram.sample_sum = histogram.sum;
      break;
    }
  }
  return metric;
}

prometheus::MetricFamily ToFamily(const ForeignFamily& family) {
  prometheus::MetricFamily made;
  const MetricInfo& metric = FindMetric(family.name);
  made.name = family.name;
  made.help = std::string(metric.help);
  switch (metric.type) {
    case MetricType::kCounter:
      made.type = prometheus::MetricType::Counter;
      break;
    case MetricType::kGauge:
      made.type = prometheus::MetricType::Gauge;
      break;
    case MetricType::kHistogram:
      made.type = prometheus::MetricType::Histogram;
      break;
  }
  for (const ForeignSample& sample : family.samples) made.metric.push_back(ToMetric(sample, metric.type));
  return made;
}

}  // namespace

struct Metrics::Impl : prometheus::Collectable {
  // The metrics of one worker's label; made once, when the worker is first seen.
  struct Worker {
    Worker(Impl& impl, const std::string& name)
        : ready(impl.worker_ready.Add({{"worker", name}})),
          running(impl.worker_running.Add({{"worker", name}})),
          waiting(impl.worker_waiting.Add({{"worker", name}})),
          kv_usage(impl.kv_usage.Add({{"worker", name}})),
          kv_pages(impl.kv_pages.Add({{"worker", name}})),
          kv_pages_used(impl.kv_pages_used.Add({{"worker", name}})),
          kv_pages_cached(impl.kv_pages_cached.Add({{"worker", name}})),
          preemptions(impl.preemptions.Add({{"worker", name}})),
          prefix_queries(impl.prefix_queries.Add({{"worker", name}})),
          prefix_hits(impl.prefix_hits.Add({{"worker", name}})),
          restarts(impl.restarts.Add({{"worker", name}})) {
      // From 0, so that a rate sees the first replay.
      impl.replayed.Add({{"worker", name}});
    }

    void ClearGauges() {
      for (Gauge* gauge :
           {&ready, &running, &waiting, &kv_usage, &kv_pages, &kv_pages_used, &kv_pages_cached}) {
        gauge->Set(0);
      }
    }

    void Set(const WorkerGauges& now) {
      ready.Set(now.ready ? 1 : 0);
      running.Set(now.running);
      waiting.Set(now.waiting);
      kv_usage.Set(now.kv_pages_total > 0
                       ? static_cast<double>(now.kv_pages_used) / static_cast<double>(now.kv_pages_total)
                       : 0);
      kv_pages.Set(static_cast<double>(now.kv_pages_total));
      kv_pages_used.Set(static_cast<double>(now.kv_pages_used));
      kv_pages_cached.Set(static_cast<double>(now.kv_pages_cached));
      preemptions.Set(now.preemptions);
      prefix_queries.Set(now.prefix_query_tokens);
      prefix_hits.Set(now.prefix_hit_tokens);
      restarts.Set(now.restarts);
    }

    Gauge& ready;
    Gauge& running;
    Gauge& waiting;
    Gauge& kv_usage;
    Gauge& kv_pages;
    Gauge& kv_pages_used;
    Gauge& kv_pages_cached;
    ToldCounter preemptions;
    ToldCounter prefix_queries;
    ToldCounter prefix_hits;
    ToldCounter restarts;
  };

  Impl() {
    MakeGauges(registry, "mnemo_start_time_seconds")
        .Add({})
        .Set(Seconds(std::chrono::system_clock::now().time_since_epoch()));
    // All foreseeable label values exist from the start, so that rates begin at 0.
    for (const char* reason : {"eos", "stop", "length"}) success.Add({{"finish_reason", reason}});
    for (const char* reason :
         {"queue_full", "tokens_in_flight", "invalid", "draining", "unimplemented", "not_found"}) {
      rejected.Add({{"reason", reason}});
    }
    for (const char* code : {"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "INTERNAL"}) {
      failed.Add({{"code", code}});
    }
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    // Held while the hook runs: after a replacement, the old hook is not running any more.
    std::lock_guard lock(hook_mutex);
    if (hook) hook();
    std::vector<prometheus::MetricFamily> families = registry.Collect();
    std::lock_guard foreign_lock(foreign_mutex);
    for (const ForeignFamily& family : foreign) {
      if (!family.samples.empty()) families.push_back(ToFamily(family));
    }
    return families;
  }

  Registry registry;

  Histogram& time_to_first_token =
      MakeHistogram(registry, "mnemo_time_to_first_token_seconds", kRequestBuckets);
  Histogram& inter_token_latency =
      MakeHistogram(registry, "mnemo_inter_token_latency_seconds", kTokenGapBuckets);
  Histogram& time_per_output_token =
      MakeHistogram(registry, "mnemo_request_time_per_output_token_seconds", kTokenGapBuckets);
  Histogram& e2e_latency = MakeHistogram(registry, "mnemo_e2e_request_latency_seconds", kRequestBuckets);
  Histogram& queue_time = MakeHistogram(registry, "mnemo_request_queue_time_seconds", kRequestBuckets);
  Histogram& prefill_time = MakeHistogram(registry, "mnemo_request_prefill_time_seconds", kRequestBuckets);
  Histogram& decode_time = MakeHistogram(registry, "mnemo_request_decode_time_seconds", kRequestBuckets);

  Counter& prompt_tokens = MakeCounters(registry, "mnemo_prompt_tokens_total").Add({});
  Counter& generation_tokens = MakeCounters(registry, "mnemo_generation_tokens_total").Add({});
  Family<Counter>& success = MakeCounters(registry, "mnemo_request_success_total");
  Family<Counter>& failed = MakeCounters(registry, "mnemo_request_failure_total");
  Family<Counter>& rejected = MakeCounters(registry, "mnemo_requests_rejected_total");
  Family<Counter>& replayed = MakeCounters(registry, "mnemo_request_replays_total");

  Gauge& requests_running = MakeGauges(registry, "mnemo_num_requests_running").Add({});
  Gauge& requests_waiting = MakeGauges(registry, "mnemo_num_requests_waiting").Add({});
  Gauge& tokens_in_flight = MakeGauges(registry, "mnemo_tokens_in_flight").Add({});

  Family<Gauge>& worker_ready = MakeGauges(registry, "mnemo_worker_ready");
  Family<Gauge>& worker_running = MakeGauges(registry, "mnemo_worker_requests_running");
  Family<Gauge>& worker_waiting = MakeGauges(registry, "mnemo_worker_requests_waiting");
  Family<Gauge>& kv_usage = MakeGauges(registry, "mnemo_kv_cache_usage_ratio");
  Family<Gauge>& kv_pages = MakeGauges(registry, "mnemo_kv_cache_pages");
  Family<Gauge>& kv_pages_used = MakeGauges(registry, "mnemo_kv_cache_pages_used");
  Family<Gauge>& kv_pages_cached = MakeGauges(registry, "mnemo_kv_cache_pages_cached");
  Family<Counter>& preemptions = MakeCounters(registry, "mnemo_num_preemptions_total");
  Family<Counter>& prefix_queries = MakeCounters(registry, "mnemo_prefix_cache_queries_total");
  Family<Counter>& prefix_hits = MakeCounters(registry, "mnemo_prefix_cache_hits_total");
  Family<Counter>& restarts = MakeCounters(registry, "mnemo_worker_restarts_total");
  Family<Gauge>& build_info = MakeGauges(registry, "mnemo_build_info");

  std::mutex workers_mutex;
  std::map<std::string, Worker> workers;
  std::mutex build_info_mutex;
  Gauge* build_info_gauge = nullptr;
  mutable std::mutex foreign_mutex;
  std::vector<ForeignFamily> foreign;
  mutable std::mutex hook_mutex;
  std::function<void()> hook;
  std::shared_ptr<Forward> forward = std::make_shared<Forward>(this);
  // Last member: its threads use all of the above.
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

absl::StatusOr<int> Metrics::Listen(const std::string& address) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(address, 1);
    std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty()) return Unavailable("server.metrics_listen: cannot listen on {}", address);
    exposer->RegisterCollectable(impl_->forward);
    impl_->exposer = std::move(exposer);
    return ports.front();
  } catch (const std::exception& error) {
    const bool is_ipv6 = address.starts_with('[');
    return Unavailable(
        "server.metrics_listen: cannot listen on {}{}: {}", address,
        is_ipv6 ? " (Debian's civetweb, which serves metrics, knows IPv4 alone)" : "; is the address taken?",
        error.what());
  }
}

std::string Metrics::Expose() const { return prometheus::TextSerializer().Serialize(impl_->Collect()); }

void Metrics::BeforeExposition(std::function<void()> hook) {
  std::lock_guard lock(impl_->hook_mutex);
  impl_->hook = std::move(hook);
}

void Metrics::ObserveInterTokenLatency(std::chrono::nanoseconds gap) {
  impl_->inter_token_latency.Observe(Seconds(gap));
}

void Metrics::ObserveTimeToFirstToken(std::chrono::nanoseconds ttft) {
  impl_->time_to_first_token.Observe(Seconds(ttft));
}

void Metrics::AddPromptTokens(int count) { impl_->prompt_tokens.Increment(count); }
void Metrics::AddGenerationTokens(int count) { impl_->generation_tokens.Increment(count); }

void Metrics::RequestSucceeded(const std::string& finish_reason, const RequestTimes& times) {
  impl_->success.Add({{"finish_reason", finish_reason}}).Increment();
  impl_->e2e_latency.Observe(Seconds(times.total));
  impl_->queue_time.Observe(Seconds(times.queue));
  impl_->prefill_time.Observe(Seconds(times.prefill));
  impl_->decode_time.Observe(Seconds(times.decode));
  if (times.has_first_token && times.completion_tokens > 1) {
    impl_->time_per_output_token.Observe(Seconds(times.decode) / (times.completion_tokens - 1));
  }
}

void Metrics::RequestFailed(const std::string& code) { impl_->failed.Add({{"code", code}}).Increment(); }

void Metrics::RequestRejected(const std::string& reason) {
  impl_->rejected.Add({{"reason", reason}}).Increment();
}

void Metrics::RequestReplayed(const std::string& worker) {
  impl_->replayed.Add({{"worker", worker}}).Increment();
}

void Metrics::SetRequests(int running, int waiting, int64_t tokens_in_flight) {
  impl_->requests_running.Set(running);
  impl_->requests_waiting.Set(waiting);
  impl_->tokens_in_flight.Set(static_cast<double>(tokens_in_flight));
}

void Metrics::SetWorkers(const std::vector<WorkerGauges>& workers) {
  std::lock_guard lock(impl_->workers_mutex);
  std::set<std::string> seen;
  for (const WorkerGauges& now : workers) {
    seen.insert(now.worker);
    auto [it, added] = impl_->workers.try_emplace(now.worker, *impl_, now.worker);
    it->second.Set(now);
  }
  // A worker that is gone holds nothing; its counters stay.
  for (auto& [name, worker] : impl_->workers) {
    if (!seen.contains(name)) worker.ClearGauges();
  }
}

void Metrics::SetForeign(std::vector<ForeignFamily> families) {
  std::lock_guard lock(impl_->foreign_mutex);
  impl_->foreign = std::move(families);
}

void Metrics::SetBuildInfo(const std::string& version, const std::string& numerics_id,
                           const std::string& model) {
  std::lock_guard lock(impl_->build_info_mutex);
  if (impl_->build_info_gauge != nullptr) impl_->build_info.Remove(impl_->build_info_gauge);
  impl_->build_info_gauge =
      &impl_->build_info.Add({{"version", version}, {"numerics_id", numerics_id}, {"model", model}});
  impl_->build_info_gauge->Set(1);
}

}  // namespace mnemo::telemetry
