#include "server/frontend/front_end.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/base/address.h"
#include "devices/base/descriptor_limit.h"
#include "devices/base/hash.h"
#include "server/frontend/admin_service.h"
#include "server/frontend/admission.h"
#include "server/frontend/energy_report.h"
#include "server/frontend/generation_service.h"
#include "server/frontend/grpc_ping.h"
#include "server/frontend/health_service.h"
#include "server/frontend/held_calls.h"
#include "server/frontend/memory_metrics.h"
#include "server/frontend/readiness.h"
#include "server/frontend/service_context.h"
#include "server/frontend/text_pool.h"
#include "server/link/acceptor.h"
#include "server/link/socket.h"
#include "server/telemetry/logging.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;

// Time for the calls that are still open when the server ends: a client that reads nothing, a reflection
// stream.
constexpr milliseconds kShutdownGrace{1500};

// Limits of admission. By default one sequence of `context_tokens` tokens can be admitted.
AdmissionLimits LimitsOf(const config::Config& config, int context_tokens) {
  AdmissionLimits limits;
  limits.max_running = config.limits.max_running;
  limits.max_queued = config.limits.max_queued;
  limits.max_tokens_in_flight = config.limits.max_tokens_in_flight > 0
                                    ? config.limits.max_tokens_in_flight
                                    : std::max<int64_t>(limits.max_tokens_in_flight, context_tokens);
  return limits;
}

// Descriptors besides those of connections: the process's own files and connections that are being refused.
// Each child needs those of its process, lifeline and link, twice while one replaces another.
constexpr int64_t kOwnDescriptors = 64;
constexpr int64_t kDescriptorsOfChild = 8;
// The bound without server.max_connections.
constexpr int64_t kMostConnections = 65536;

constexpr int kKeepaliveTimeoutMs = 20000;

// The names of listening sockets in the service manager's store: this and a hash of the address, since names
// have no colon.
constexpr std::string_view kListenerName = "listener-";

std::string ListenerName(std::string_view address) {
  Hasher hasher;
  hasher.AddText(address);
  return std::string(kListenerName) + hasher.digest().Text();
}

// Whether the file of this Unix socket is below the folder that the service manager makes for the unit, and
// removes with it (RuntimeDirectory=). Elsewhere nobody would remove it after the last process.
bool IsInRuntimeDirectory(const std::string& address) {
  const char* const folder = std::getenv("RUNTIME_DIRECTORY");
  const std::optional<std::string_view> path = UnixSocketPath(address);
  return folder != nullptr && path.has_value() && path->starts_with(std::string(folder) + "/");
}

// server.max_connections or its default, within the limit of descriptors.
int ConnectionBound(const config::Config& config, const ServedModel& model) {
  const auto children =
      static_cast<int64_t>(config.workers.addresses.size()) + config.workers.count + config.memory.services;
  const int64_t more_files = model.file != nullptr ? static_cast<int64_t>(model.file->part_count()) - 1 : 0;
  const int64_t room =
      std::max<int64_t>(DescriptorLimit() - kOwnDescriptors - kDescriptorsOfChild * children - more_files, 1);
  const int64_t wanted = config.server.max_connections;
  if (wanted > room) {
    spdlog::warn("server.max_connections: {} are not to be had with a limit of {} descriptors; it is {}",
                 wanted, DescriptorLimit(), room);
  }
  return static_cast<int>(wanted > 0 ? std::min(wanted, room) : std::min(room, kMostConnections));
}

telemetry::ForeignFamily DroppedLogLines(const std::vector<dispatch::WorkerSnapshot>& workers,
                                         const std::vector<dispatch::MemorySnapshot>& services) {
  telemetry::ForeignFamily family = {"mnemo_log_lines_dropped_total"};
  const auto add = [&](const std::string& process, uint64_t lines) {
    family.samples.push_back({{{"process", process}}, static_cast<double>(lines)});
  };
  add("mnemod", telemetry::LogLinesDropped());
  for (const dispatch::WorkerSnapshot& worker : workers)
    add(worker.name, worker.heartbeat.log_lines_dropped());
  for (const dispatch::MemorySnapshot& service : services)
    add(service.name, service.stats.log_lines_dropped());
  return family;
}

}  // namespace

struct FrontEnd::Impl {
  Impl(Options given, const ServedModel* model, dispatch::Dispatcher* the_dispatcher,
       telemetry::Metrics* the_metrics)
      : options(std::move(given)),
        metrics(the_metrics),
        dispatcher(the_dispatcher),
        attention(MakeAttentionServing(options.config, model->config)),
        admission(LimitsOf(options.config, model->context_tokens),
                  [this](const AdmissionCounts& counts) {
                    metrics->SetRequests(counts.running, counts.queued, counts.tokens_in_flight);
                  }),
        readiness(milliseconds(options.config.server.health_grace_ms), [this](bool is_ready) {
          health.SetReady(is_ready);
          if (options.on_ready_change) options.on_ready_change(is_ready);
        }) {
    context = {.model = model,
               .attention = &attention,
               .dispatcher = dispatcher,
               .metrics = metrics,
               .energy = options.energy,
               .admission = &admission,
               .streams = &streams,
               .held_calls = &held_calls,
               .text_pool = &text_pool,
               .chat_pool = &chat_pool,
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
      readiness.SetDraining(true);
    }
    streams.Drain(std::chrono::steady_clock::now() + timeout, std::move(done));
  }

  absl::Status Resume() {
    {
      std::lock_guard lock(mutex);
      if (is_ending) return FailedPrecondition("resume: the process is about to end");
      admission.SetDraining(false);
      readiness.SetDraining(false);
    }
    streams.Resume();
    return absl::OkStatus();
  }

  absl::Status Listen();
  absl::Status MakeAcceptor();
  void KeepListeners(bool keeps, std::vector<std::string> kept);
  void BeginHandOver();
  // Until all streams have closed, at most so long: those that were cut take their status with them.
  void WaitForStreams(milliseconds time);
  // Before each scrape.
  void FeedMetrics();

  Options options;
  telemetry::Metrics* const metrics;
  dispatch::Dispatcher* const dispatcher;
  const AttentionServing attention;
  Tunables tunables;
  Admission admission;
  Streams streams;
  HeldCalls held_calls;
  TextPool text_pool;
  TextPool chat_pool{TextPool::kMaxQueuedChats};
  ServiceContext context;
  HealthService health;
  Readiness readiness;
  std::unique_ptr<grpc::Service> generation;
  std::unique_ptr<grpc::Service> admin;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server_input;
  // Destroyed before the server.
  std::unique_ptr<link::Acceptor> acceptor;
  std::unique_ptr<GrpcPing> ping;
  // The value that metrics show.
  std::string numerics_id;

  // Orders drains and their ends.
  std::mutex mutex;
  bool is_ending = false;
  bool is_handing_over = false;
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
  MNEMO_RETURN_IF_ERROR(MakeAcceptor());
  grpc::ServerBuilder builder;
  server_input = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterService(generation.get());
  builder.RegisterService(admin.get());
  builder.RegisterService(health.service());
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  // Our own answers keep to max_message_bytes by themselves, with a few bytes of framing. Those of gRPC's
  // reflection grow with every request of a stream.
  builder.SetMaxSendMessageSize(static_cast<int>(config.max_message_bytes) + (64 << 10));
  // Keepalive finds clients that are gone without closing, and clients may send pings too.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  server = builder.BuildAndStart();
  if (server == nullptr) return Internal("server.listen: gRPC cannot start its server");
  ping = std::make_unique<GrpcPing>(server_input.get());
  dispatcher->OnReadyChange([this](int count) { readiness.SetReadyWorkers(count); });
  metrics->SetBuildInfo(options.version, "", context.model->name);
  metrics->BeforeExposition([this] { FeedMetrics(); });
  return acceptor->Start();
}

absl::Status FrontEnd::Impl::MakeAcceptor() {
  const config::Config::Server& config = options.config.server;
  link::Acceptor::Options accepting;
  accepting.address = config.listen;
  accepting.unix_mode = static_cast<mode_t>(std::stoul(config.listen_mode, nullptr, 8));
  accepting.max_connections = ConnectionBound(options.config, *context.model);
  accepting.bound = "server.max_connections";
  accepting.user_timeout_ms = kKeepaliveTimeoutMs;
  accepting.on_trouble = [](const std::string& line) { spdlog::warn("server.listen: {}", line); };
  accepting.on_connection = [this](UniqueFd connection, int listener) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.listener_fd = listener;
    // The server closes the descriptor in every case.
    parameters.fd = connection.Release();
    server_input->HandleNewConnection(&parameters);
  };
  link::Acceptor::Inherited inherited;
  std::vector<std::string> kept;
  for (PassedDescriptor& passed : options.passed) {
    if (passed.name.starts_with(kListenerName)) {
      kept.push_back(passed.name);
      inherited.kept.push_back(std::move(passed.fd));
    } else {
      inherited.passed.push_back(std::move(passed.fd));
    }
  }
  options.passed.clear();
  accepting.leaves_file = options.hands_over && IsInRuntimeDirectory(config.listen);
  const bool keeps = options.hands_over && (!UnixSocketPath(config.listen) || accepting.leaves_file);
  auto made = link::Acceptor::Listen(std::move(accepting), std::move(inherited));
  if (!made.ok()) return Annotate(made.status(), "server.listen");
  acceptor = *std::move(made);
  KeepListeners(keeps, kept);
  return absl::OkStatus();
}

// `kept`: names of those that the manager has now.
void FrontEnd::Impl::KeepListeners(bool keeps, std::vector<std::string> kept) {
  for (const int fd : acceptor->own_listeners()) {
    const absl::StatusOr<std::string> address = link::ListeningAddress(fd);
    if (!keeps || !address.ok()) continue;
    const std::string name = ListenerName(*address);
    if (std::erase(kept, name) == 0) KeepDescriptor(name, fd);
  }
  for (const std::string& name : kept) ForgetDescriptor(name);
}

// Connections that come from now on wait in the sockets' queues.
void FrontEnd::Impl::BeginHandOver() {
  {
    std::lock_guard lock(mutex);
    if (!options.hands_over || is_handing_over) return;
    is_handing_over = true;
  }
  held_calls.Begin(options.config.limits.max_queued);
  acceptor->Stop();
}

void FrontEnd::Impl::WaitForStreams(milliseconds time) {
  std::promise<void> closed;
  streams.Drain(std::chrono::steady_clock::now() + time, [&](DrainResult) { closed.set_value(); });
  closed.get_future().wait();
}

void FrontEnd::Impl::FeedMetrics() {
  std::vector<telemetry::WorkerGauges> gauges;
  const std::vector<dispatch::WorkerSnapshot> workers = dispatcher->Workers();
  for (const dispatch::WorkerSnapshot& worker : workers) {
    telemetry::WorkerGauges gauge;
    gauge.worker = worker.name;
    gauge.ready = worker.state == dispatch::WorkerSnapshot::State::kReady;
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
  const std::vector<dispatch::MemorySnapshot> services = dispatcher->MemoryServices();
  std::vector<telemetry::ForeignFamily> families = MemoryFamilies(workers, services);
  families.push_back(DroppedLogLines(workers, services));
  families.push_back({"mnemo_ready", {{{}, readiness.is_ready() ? 1.0 : 0.0}}});
  families.push_back({"mnemo_connections", {{{}, static_cast<double>(acceptor->CountOpen())}}});
  families.push_back({"mnemo_connections_refused_total", {{{}, static_cast<double>(acceptor->refused())}}});
  if (options.energy != nullptr) {
    for (telemetry::ForeignFamily& family : EnergyFamilies(options.energy->Snapshot())) {
      families.push_back(std::move(family));
    }
  }
  metrics->SetForeign(std::move(families));
}

absl::StatusOr<std::unique_ptr<FrontEnd>> FrontEnd::Start(Options options, const ServedModel* model,
                                                          dispatch::Dispatcher* dispatcher,
                                                          telemetry::Metrics* metrics) {
  auto impl = std::make_unique<Impl>(std::move(options), model, dispatcher, metrics);
  MNEMO_RETURN_IF_ERROR(CheckDefaultMethod(impl->attention));
  MNEMO_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<FrontEnd>(new FrontEnd(std::move(impl)));
}

FrontEnd::FrontEnd(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FrontEnd::~FrontEnd() { Shutdown(); }

const std::string& FrontEnd::address() const { return impl_->acceptor->address(); }
int FrontEnd::live_streams() const { return impl_->streams.count(); }

void FrontEnd::Reload(const config::Config& config) {
  impl_->SetTunables(config);
  impl_->readiness.SetGrace(milliseconds(config.server.health_grace_ms));
  impl_->admission.SetLimits(LimitsOf(config, impl_->context.model->context_tokens));
}

void FrontEnd::BeginDrainForEnd(milliseconds timeout, std::function<void(DrainResult)> done) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->is_ending = true;
  }
  impl_->BeginHandOver();
  impl_->Drain(timeout, std::move(done));
}

DrainResult FrontEnd::DrainForEnd(milliseconds timeout) {
  auto promise = std::make_shared<std::promise<DrainResult>>();
  std::future<DrainResult> result = promise->get_future();
  BeginDrainForEnd(timeout, [promise](DrainResult drained) { promise->set_value(drained); });
  return result.get();
}

bool FrontEnd::has_served() const { return impl_->readiness.has_served(); }

std::vector<dispatch::LoopTurns> FrontEnd::AskForTurns() {
  std::vector<dispatch::LoopTurns> turns = {{"gRPC", impl_->ping->Ask()}};
  std::lock_guard lock(impl_->mutex);
  if (!impl_->is_handing_over) turns.push_back({"accepting of connections", impl_->acceptor->AskForTurn()});
  return turns;
}

void FrontEnd::SetLive(bool is_live) { impl_->health.SetLive(is_live); }

void FrontEnd::Shutdown() {
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->is_shut_down) return;
    impl_->is_shut_down = true;
    impl_->is_ending = true;
  }
  impl_->metrics->BeforeExposition(nullptr);
  impl_->dispatcher->OnReadyChange(nullptr);
  if (impl_->acceptor != nullptr) impl_->acceptor->Stop();
  if (impl_->server == nullptr) return;
  impl_->Drain(milliseconds(0), [](DrainResult) {});
  impl_->WaitForStreams(kShutdownGrace);
  impl_->ping.reset();
  impl_->health.Shutdown();
  // First, since gRPC answers a call that arrives during its shutdown with CANCELLED, which clients do not
  // repeat. A closed connection is UNAVAILABLE.
  impl_->acceptor->EndConnections();
  impl_->server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
}

}  // namespace mnemo::frontend
