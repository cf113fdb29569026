#include "server/telemetry/metric_table.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>

#include "devices/base/status.h"

namespace mnemo::telemetry {
namespace {

constexpr MetricInfo kOwnMetrics[] = {
    {"mnemo_time_to_first_token_seconds", MetricType::kHistogram, "",
     "Time from a request's arrival to its first output token.", MetricPresence::kStart},
    {"mnemo_inter_token_latency_seconds", MetricType::kHistogram, "",
     "Time between two successive output tokens of a request, as they leave the server.",
     MetricPresence::kStart},
    {"mnemo_request_time_per_output_token_seconds", MetricType::kHistogram, "",
     "Decode time of a finished request divided by its output tokens after the first.",
     MetricPresence::kStart},
    {"mnemo_e2e_request_latency_seconds", MetricType::kHistogram, "",
     "Time from a request's arrival to its end.", MetricPresence::kStart},
    {"mnemo_request_queue_time_seconds", MetricType::kHistogram, "",
     "Time a request waited before a worker began to compute it.", MetricPresence::kStart},
    {"mnemo_request_prefill_time_seconds", MetricType::kHistogram, "",
     "Time from the begin of a request's computation to its first token.", MetricPresence::kStart},
    {"mnemo_request_decode_time_seconds", MetricType::kHistogram, "",
     "Time from a request's first token to its last.", MetricPresence::kStart},
    {"mnemo_prompt_tokens_total", MetricType::kCounter, "", "Prompt tokens of admitted requests.",
     MetricPresence::kStart},
    {"mnemo_generation_tokens_total", MetricType::kCounter, "", "Output tokens sent to clients.",
     MetricPresence::kStart},
    {"mnemo_request_success_total", MetricType::kCounter, "finish_reason",
     "Requests that ended well, by why the output ended.", MetricPresence::kStart},
    {"mnemo_request_failure_total", MetricType::kCounter, "code",
     "Requests that were admitted and ended with an error, by gRPC code.", MetricPresence::kStart},
    {"mnemo_requests_rejected_total", MetricType::kCounter, "reason",
     "Requests that were not admitted, by reason.", MetricPresence::kStart},
    {"mnemo_request_replays_total", MetricType::kCounter, "worker",
     "Requests started again elsewhere after this worker was lost.", MetricPresence::kWorker},
    {"mnemo_num_requests_running", MetricType::kGauge, "",
     "Admitted requests at a worker, as the front end counts.", MetricPresence::kStart},
    {"mnemo_num_requests_waiting", MetricType::kGauge, "", "Admitted requests that wait for a worker.",
     MetricPresence::kStart},
    {"mnemo_tokens_in_flight", MetricType::kGauge, "",
     "Prompt and max_tokens of all admitted requests together.", MetricPresence::kStart},
    {"mnemo_start_time_seconds", MetricType::kGauge, "",
     "Time at which mnemod started, in seconds since 1970, UTC.", MetricPresence::kStart},
    {"mnemo_ready", MetricType::kGauge, "", "1 while health checks say that requests are taken, else 0.",
     MetricPresence::kStart},
    {"mnemo_connections", MetricType::kGauge, "", "Connections of clients that are open.",
     MetricPresence::kStart},
    {"mnemo_connections_refused_total", MetricType::kCounter, "",
     "Connections beyond server.max_connections.", MetricPresence::kStart},
    {"mnemo_log_lines_dropped_total", MetricType::kCounter, "process",
     "Lines of a process's log that were dropped, since what they go to did not take them.",
     MetricPresence::kStart},
    {"mnemo_build_info", MetricType::kGauge, "version numerics_id model",
     "Always 1; the labels tell what is running.", MetricPresence::kWorker},
    {"mnemo_worker_ready", MetricType::kGauge, "worker", "1 when the worker takes requests, else 0.",
     MetricPresence::kWorker},
    {"mnemo_worker_requests_running", MetricType::kGauge, "worker", "Requests that hold KV pages, by worker.",
     MetricPresence::kWorker},
    {"mnemo_worker_requests_waiting", MetricType::kGauge, "worker",
     "Requests that wait for KV pages, by worker.", MetricPresence::kWorker},
    {"mnemo_worker_restarts_total", MetricType::kCounter, "worker", "Times the worker was started again.",
     MetricPresence::kWorker},
    {"mnemo_kv_cache_usage_ratio", MetricType::kGauge, "worker",
     "KV pages held by requests, as a share of all.", MetricPresence::kWorker},
    {"mnemo_kv_cache_pages", MetricType::kGauge, "worker", "KV pages of the worker's pool.",
     MetricPresence::kWorker},
    {"mnemo_kv_cache_pages_used", MetricType::kGauge, "worker", "KV pages held by running requests.",
     MetricPresence::kWorker},
    {"mnemo_kv_cache_pages_cached", MetricType::kGauge, "worker",
     "KV pages kept for prefix reuse, which any request may take.", MetricPresence::kWorker},
    {"mnemo_num_preemptions_total", MetricType::kCounter, "worker",
     "Times a request gave up its KV pages and was queued again.", MetricPresence::kWorker},
    {"mnemo_prefix_cache_queries_total", MetricType::kCounter, "worker",
     "Prompt tokens looked up in the prefix cache.", MetricPresence::kWorker},
    {"mnemo_prefix_cache_hits_total", MetricType::kCounter, "worker",
     "Prompt tokens found in the prefix cache.", MetricPresence::kWorker},
    {"mnemo_memory_step_seconds", MetricType::kHistogram, "worker method step device",
     "What a step of memory processing took in one step of the engine.", MetricPresence::kSparse},
    {"mnemo_memory_step_bytes_total", MetricType::kCounter, "worker method step device",
     "Bytes that a step of memory processing read, wrote or moved.", MetricPresence::kSparse},
    {"mnemo_memory_round_trip_seconds", MetricType::kHistogram, "worker",
     "From handing a submission to the memory service to having its results.", MetricPresence::kWorker},
    {"mnemo_memory_bytes_total", MetricType::kCounter, "worker direction",
     "Bytes between workers and memory services, by direction.", MetricPresence::kWorker},
    {"mnemo_memory_selected_tokens", MetricType::kHistogram, "worker",
     "Tokens selected for a decode row, a layer and a KV head.", MetricPresence::kWorker},
    {"mnemo_memory_hot_tokens_total", MetricType::kCounter, "worker result",
     "Tokens selected of sequences whose keys and values a memory service keeps, over layers and KV heads: "
     "those that the worker had (hit), and those that it fetched (miss).",
     MetricPresence::kWorker},
    {"mnemo_memory_resident_pages", MetricType::kGauge, "worker state",
     "Pages of layers that are not sparse, of sequences whose keys and values a memory service keeps: in "
     "use, and there.",
     MetricPresence::kWorker},
    {"mnemo_memory_fallbacks_total", MetricType::kCounter, "worker reason",
     "Requests that went on in the worker instead of in the memory service, by reason.",
     MetricPresence::kWorker},
    {"mnemo_memory_service_attached", MetricType::kGauge, "worker",
     "1 when the worker is attached to its memory service.", MetricPresence::kService},
    {"mnemo_memory_indexes", MetricType::kGauge, "place", "Indexes of running requests, by where they are.",
     MetricPresence::kWorker},
    {"mnemo_memory_index_bytes", MetricType::kGauge, "place", "What indexes take, by where they are.",
     MetricPresence::kWorker},
    {"mnemo_memory_service_limit_bytes", MetricType::kGauge, "service",
     "What the indexes of a memory service may take.", MetricPresence::kOwnService},
    {"mnemo_memory_service_ready", MetricType::kGauge, "service", "1 when the memory service works, else 0.",
     MetricPresence::kService},
    {"mnemo_memory_service_simulated", MetricType::kGauge, "service",
     "1 when the memory service's device is simulated, and the times of its steps with it, else 0.",
     MetricPresence::kOwnService},
    {"mnemo_memory_service_restarts_total", MetricType::kCounter, "service",
     "Times the memory service was started again.", MetricPresence::kOwnService},
    {"mnemo_energy_joules_total", MetricType::kCounter, "device kind source",
     "Energy of a device since the start.", MetricPresence::kMeasured},
    {"mnemo_energy_use_joules_total", MetricType::kCounter, "device use",
     "Energy of a device by use: by requests, by this server without a request's work, idle, and by other "
     "programs.",
     MetricPresence::kMeasured},
    {"mnemo_step_energy_joules_total", MetricType::kCounter, "device method step",
     "Energy of requests by step of their work, method of attention and device.",
     MetricPresence::kRequestEnergy},
    {"mnemo_power_watts", MetricType::kGauge, "device", "Power of a device, mean of the last second.",
     MetricPresence::kMeasured},
    {"mnemo_idle_power_watts", MetricType::kGauge, "device origin",
     "Power of a device without work, as the attribution takes it.", MetricPresence::kMeasured},
    {"mnemo_energy_meter_up", MetricType::kGauge, "device source",
     "1 when the meter of the device can be read, else 0.", MetricPresence::kMeter},
    {"mnemo_energy_samples_dropped_total", MetricType::kCounter, "device reason",
     "Readings of a meter that were not used, by reason.", MetricPresence::kMeter},
    {"mnemo_request_energy_joules", MetricType::kHistogram, "",
     "Energy of each request that ended, over all its attempts and devices.", MetricPresence::kMeasured},
    {"mnemo_output_token_energy_joules", MetricType::kHistogram, "",
     "Energy of each request that ended, divided by its output tokens.", MetricPresence::kMeasured},
};

constexpr MetricInfo kPlaneMetrics[] = {
    {"mnemo_memory_service_operations_total", MetricType::kCounter, "device op status",
     "Descriptors answered, by operation and status.", MetricPresence::kOperation},
    {"mnemo_memory_service_step_seconds_total", MetricType::kCounter, "device step",
     "Time of the device by step of memory processing; queue is what descriptors waited, which is in no "
     "step.",
     MetricPresence::kStart},
    {"mnemo_memory_service_bytes_total", MetricType::kCounter, "device direction",
     "Bytes of indexes read, and of records and results written.", MetricPresence::kStart},
    {"mnemo_memory_service_batches_total", MetricType::kCounter, "device",
     "Batches of queries that the device has run.", MetricPresence::kStart},
    {"mnemo_memory_service_sleeps_total", MetricType::kCounter, "device",
     "Times that the data plane found nothing to do and slept.", MetricPresence::kStart},
    {"mnemo_memory_service_device_failures_total", MetricType::kCounter, "device",
     "Resets of a device that did not finish an operation in time.", MetricPresence::kStart},
    {"mnemo_memory_service_capacity_bytes", MetricType::kGauge, "device", "Memory that indexes may take.",
     MetricPresence::kStart},
    {"mnemo_memory_service_draining", MetricType::kGauge, "device",
     "1 when the service takes no new indexes and owners, else 0.", MetricPresence::kStart},
    {"mnemo_memory_service_attachments_total", MetricType::kCounter, "device", "Workers that have attached.",
     MetricPresence::kStart},
    {"mnemo_memory_service_lost_owners_total", MetricType::kCounter, "device",
     "Attachments that ended with indexes left.", MetricPresence::kStart},
    {"mnemo_memory_service_log_lines_dropped_total", MetricType::kCounter, "device",
     "Lines of the log that could not be written in time.", MetricPresence::kStart},
    {"mnemo_memory_service_index_bytes", MetricType::kGauge, "device owner epoch",
     "Memory of an owner's indexes.", MetricPresence::kAttached},
    {"mnemo_memory_service_indexes", MetricType::kGauge, "device owner epoch", "Indexes of an owner.",
     MetricPresence::kAttached},
    {"mnemo_memory_service_quota_bytes", MetricType::kGauge, "device owner epoch",
     "Memory that an owner's indexes may take.", MetricPresence::kAttached},
    {"mnemo_memory_service_device_info", MetricType::kGauge, "device kind time",
     "Always 1; the labels tell the kind of the device, and whether its times are real or simulated.",
     MetricPresence::kStart},
};

constexpr MetricInfo kDeviceMetrics[] = {
    {"mnemo_memory_service_energy_joules_total", MetricType::kCounter, "device source",
     "Energy of the operations that the device has finished, by a model or a counter.",
     MetricPresence::kCounters},
    {"mnemo_memory_service_device_cycles_total", MetricType::kCounter, "device",
     "Cycles of the device's clock since its start.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_busy_cycles_total", MetricType::kCounter, "device",
     "Cycles in which the device had a job.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_descriptors_total", MetricType::kCounter, "device",
     "Descriptors that the device has taken.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_refused_total", MetricType::kCounter, "device",
     "Descriptors that the device has answered with another status than ok.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_jobs_total", MetricType::kCounter, "device",
     "Jobs of the device: query positions times heads, with each stage of a cascade counted.",
     MetricPresence::kCounters},
    {"mnemo_memory_service_device_host_bytes_total", MetricType::kCounter, "device direction",
     "Bytes that the device has moved over the bus of its host.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_result_stall_cycles_total", MetricType::kCounter, "device",
     "Cycles in which results waited for the host's memory.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_queue_depth", MetricType::kGauge, "device",
     "Descriptors that the device knows of and has not taken.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_record_bytes", MetricType::kGauge, "device state",
     "Bytes of the device's own memory for records, by state: used, or total.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_channel_beats_total", MetricType::kCounter, "device channel",
     "Beats that the device has read from a channel of its memory.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_channel_bytes_total", MetricType::kCounter, "device channel",
     "Bytes that the device has read from a channel of its memory.", MetricPresence::kCounters},
    {"mnemo_memory_service_device_channel_busy_cycles_total", MetricType::kCounter, "device channel",
     "Cycles in which a channel's scan had a job and, if the job reads listed pages, its list.",
     MetricPresence::kCounters},
    {"mnemo_memory_service_device_channel_stall_cycles_total", MetricType::kCounter, "device channel cause",
     "Cycles in which a channel's scan stood still, by cause: memory, tables, scorers or bank.",
     MetricPresence::kCounters},
};

template <size_t kFirst, size_t kSecond>
constexpr std::array<MetricInfo, kFirst + kSecond> Join(const MetricInfo (&first)[kFirst],
                                                        const MetricInfo (&second)[kSecond]) {
  std::array<MetricInfo, kFirst + kSecond> all;
  std::copy(std::begin(second), std::end(second), std::copy(std::begin(first), std::end(first), all.begin()));
  return all;
}

constexpr auto kDaemonMetrics = Join(kOwnMetrics, kDeviceMetrics);
constexpr auto kMemoryServiceMetrics = Join(kPlaneMetrics, kDeviceMetrics);

}  // namespace

std::span<const MetricInfo> DaemonMetrics() { return kDaemonMetrics; }
std::span<const MetricInfo> MemoryServiceMetrics() { return kMemoryServiceMetrics; }
std::span<const MetricInfo> DeviceMetrics() { return kDeviceMetrics; }

const MetricInfo& FindMetric(std::string_view name) {
  const MetricInfo* found = nullptr;
  for (const std::span<const MetricInfo> table : {DaemonMetrics(), MemoryServiceMetrics()}) {
    for (const MetricInfo& metric : table) {
      if (metric.name == name) found = &metric;
    }
  }
  MNEMO_CHECK(found != nullptr);
  return *found;
}

}  // namespace mnemo::telemetry
