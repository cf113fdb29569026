#include "server/frontend/front_end.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>

#include <future>
#include <mutex>
#include <utility>
#include <vector>

#include "server/frontend/admin_service.h"
#include "server/frontend/admission.h"
#include "server/frontend/generation_service.h"
#include "server/frontend/health_service.h"
#include "server/frontend/memory_metrics.h"
#include "server/frontend/service_context.h"
#include "server/frontend/text_pool.h"
#include "server/telemetry/logging.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;

// What is still open when the server ends (a client that reads nothing, a reflection stream) gets so long.
constexpr milliseconds kShutdownGrace{1500};

AdmissionLimits LimitsOf(const config::Config& config) {
  return {config.limits.max_running, config.limits.max_queued, config.limits.max_tokens_in_flight};
}

std::string WithPort(const std::string& address, int port) {
  return address.substr(0, address.rfind(':') + 1) + std::to_string(port);
}

telemetry::ForeignFamily DroppedLogLines(const std::vector<WorkerSnapshot>& workers,
                                         const std::vector<MemorySnapshot>& services) {
  telemetry::ForeignFamily family = {
      "log_lines_dropped_total",
      "Lines of a process's log that were dropped, since what they go to did not take them.",
      telemetry::ForeignFamily::Kind::kCounter,
      {}};
  const auto add = [&](const std::string& process, uint64_t lines) {
    family.samples.push_back({{{"process", process}}, static_cast<double>(lines)});
  };
  add("mnemod", telemetry::LogLinesDropped());
  for (const WorkerSnapshot& worker : workers) add(worker.name, worker.heartbeat.log_lines_dropped());
  for (const MemorySnapshot& service : services) add(service.name, service.stats.log_lines_dropped());
  return family;
}

}  // namespace

struct FrontEnd::Impl {
  Impl(Options given, const ServedModel* model, Dispatcher* the_dispatcher, telemetry::Metrics* the_metrics)
      : options(std::move(given)),
        metrics(the_metrics),
        dispatcher(the_dispatcher),
        attention(MakeAttentionServing(options.config, model->config)),
        admission(LimitsOf(options.config), [this](const AdmissionCounts& counts) {
          metrics->SetRequests(counts.running, counts.queued, counts.tokens_in_flight);
        }) {
    context = {.model = model,
               .attention = &attention,
               .dispatcher = dispatcher,
               .metrics = metrics,
               .admission = &admission,
               .streams = &streams,
               .text_pool = &text_pool,
               .tunables = &tunables,
               .reserve_tokens = options.config.engine.reserve_tokens,
               .max_message_bytes = options.config.server.max_message_bytes};
    SetTunables(options.config);
  }

  void SetTunables(const config::Config& config) {
    tunables.max_tokens = config.limits.max_tokens;
    tunables.retry_pushback_ms = config.limits.retry_pushback_ms;
    tunables.slow_reader_max_tokens = config.server.slow_reader_max_tokens;
    tunables.slow_reader_timeout_ms = config.server.slow_reader_timeout_ms;
  }

  void Drain(milliseconds timeout, std::function<void(DrainResult)> done) {
    {
      std::lock_guard lock(mutex);
      admission.SetDraining(true);
      UpdateHealth();
    }
    streams.Drain(std::chrono::steady_clock::now() + timeout, std::move(done));
  }

  absl::Status Resume() {
    {
      std::lock_guard lock(mutex);
      if (is_ending) return FailedPrecondition("resume: the process is about to end");
      admission.SetDraining(false);
      UpdateHealth();
    }
    streams.Resume();
    return absl::OkStatus();
  }

  void SetReadyWorkers(int count) {
    std::lock_guard lock(mutex);
    ready_workers = count;
    has_served = has_served || count > 0;
    UpdateHealth();
  }

  // With mutex held.
  void UpdateHealth() { health.SetServing(ready_workers > 0 && !admission.draining()); }

  absl::Status Listen();
  // Before each scrape.
  void FeedMetrics();

  const Options options;
  telemetry::Metrics* const metrics;
  Dispatcher* const dispatcher;
  const AttentionServing attention;
  Tunables tunables;
  Admission admission;
  Streams streams;
  TextPool text_pool;
  ServiceContext context;
  HealthService health;
  std::unique_ptr<grpc::Service> generation;
  std::unique_ptr<grpc::Service> admin;
  std::unique_ptr<grpc::Server> server;
  std::string address;
  std::string numerics_id;  // last told to metrics

  std::mutex mutex;  // orders changes of what health depends on
  int ready_workers = 0;
  bool has_served = false;
  bool is_ending = false;
  bool is_shut_down = false;
};

absl::Status FrontEnd::Impl::Listen() {
  generation = MakeGenerationService(&context);
  AdminActions actions;
  actions.version = options.version;
  actions.default_drain_timeout = milliseconds(options.config.server.drain_timeout_ms);
  actions.drain = [this](milliseconds timeout, std::function<void(DrainResult)> done) {
    Drain(timeout, std::move(done));
  };
  actions.resume = [this] { return Resume(); };
  admin = MakeAdminService(&context, std::move(actions));

  const config::Config::Server& config = options.config.server;
  // For the whole process, as gRPC has it; it must come before the builder.
  if (config.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(generation.get());
  builder.RegisterService(admin.get());
  builder.RegisterService(health.service());
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  // Two servers on one port would share its connections at random; the second one is to fail.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients that went away without a word are found, and clients may look for us.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return Unavailable("server.listen: cannot listen on {}; is the address taken?", config.listen);
  }
  address = WithPort(config.listen, port);
  dispatcher->OnReadyChange([this](int count) { SetReadyWorkers(count); });
  metrics->SetBuildInfo(options.version, "", context.model->name);
  metrics->BeforeExposition([this] { FeedMetrics(); });
  return absl::OkStatus();
}

void FrontEnd::Impl::FeedMetrics() {
  std::vector<telemetry::WorkerGauges> gauges;
  const std::vector<WorkerSnapshot> workers = dispatcher->Workers();
  for (const WorkerSnapshot& worker : workers) {
    telemetry::WorkerGauges gauge;
    gauge.worker = worker.name;
    gauge.ready = worker.state == WorkerSnapshot::State::kReady;
    gauge.running = worker.heartbeat.running();
    gauge.waiting = worker.heartbeat.waiting();
    gauge.kv_pages_used = worker.heartbeat.kv_pages_used();
    gauge.kv_pages_total = worker.ready.kv_pages_total();
    gauge.kv_pages_cached = worker.heartbeat.kv_pages_cached();
    gauge.preemptions = worker.counters.preemptions;
    gauge.prefix_query_tokens = worker.counters.prefix_query_tokens;
    gauge.prefix_hit_tokens = worker.counters.prefix_hit_tokens;
    gauge.restarts = static_cast<uint64_t>(worker.restarts);
    gauges.push_back(std::move(gauge));
    if (gauges.back().ready && worker.ready.numerics_id() != numerics_id) {
      numerics_id = worker.ready.numerics_id();
      metrics->SetBuildInfo(options.version, numerics_id, context.model->name);
    }
  }
  metrics->SetWorkers(gauges);
  const std::vector<MemorySnapshot> services = dispatcher->MemoryServices();
  std::vector<telemetry::ForeignFamily> families = MemoryFamilies(workers, services);
  families.push_back(DroppedLogLines(workers, services));
  metrics->SetForeign(std::move(families));
}

absl::StatusOr<std::unique_ptr<FrontEnd>> FrontEnd::Start(Options options, const ServedModel* model,
                                                          Dispatcher* dispatcher,
                                                          telemetry::Metrics* metrics) {
  auto impl = std::make_unique<Impl>(std::move(options), model, dispatcher, metrics);
  MNEMO_RETURN_IF_ERROR(CheckDefaultMethod(impl->attention));
  MNEMO_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<FrontEnd>(new FrontEnd(std::move(impl)));
}

FrontEnd::FrontEnd(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FrontEnd::~FrontEnd() { Shutdown(); }

const std::string& FrontEnd::address() const { return impl_->address; }
int FrontEnd::live_streams() const { return impl_->streams.count(); }

void FrontEnd::Reload(const config::Config& config) {
  impl_->SetTunables(config);
  impl_->admission.SetLimits(LimitsOf(config));
}

void FrontEnd::BeginDrainForEnd(milliseconds timeout, std::function<void(DrainResult)> done) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->is_ending = true;
  }
  impl_->Drain(timeout, std::move(done));
}

DrainResult FrontEnd::DrainForEnd(milliseconds timeout) {
  auto promise = std::make_shared<std::promise<DrainResult>>();
  std::future<DrainResult> result = promise->get_future();
  BeginDrainForEnd(timeout, [promise](DrainResult drained) { promise->set_value(drained); });
  return result.get();
}

bool FrontEnd::has_served() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->has_served;
}

void FrontEnd::Shutdown() {
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->is_shut_down) return;
    impl_->is_shut_down = true;
    impl_->is_ending = true;
  }
  impl_->metrics->BeforeExposition(nullptr);
  impl_->dispatcher->OnReadyChange(nullptr);
  if (impl_->server == nullptr) return;
  impl_->Drain(milliseconds(0), [](DrainResult) {});
  impl_->health.Shutdown();
  impl_->server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
}

}  // namespace mnemo::frontend
