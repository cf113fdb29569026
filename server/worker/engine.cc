#include "server/worker/engine.h"

#include <algorithm>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#include "devices/base/clock.h"
#include "server/model/transformer.h"
#include "server/worker/engine_setup.h"
#include "server/worker/forward_step.h"
#include "server/worker/mailbox.h"
#include "server/worker/request.h"
#include "server/worker/request_check.h"
#include "server/worker/request_memory.h"
#include "server/worker/scheduler.h"
#include "server/worker/span_recorder.h"
#include "server/worker/step_report.h"
#include "server/worker/step_sampler.h"

namespace mnemo::worker {
namespace {

using Clock = Request::Clock;

// The cost of sparse attention is reported every so many tokens, so that it is known when the worker dies.
constexpr int kReportTokens = 16;

// An idle engine shows a watchdog that often that it is alive.
constexpr std::chrono::milliseconds kIdleTurn{50};

}  // namespace

struct Engine::Impl {
  Impl(const EngineOptions& engine_options, model::Transformer* transformer, devices::Device* device,
       EngineSink* engine_sink, std::unique_ptr<devices::KvCache> kv_cache,
       std::unique_ptr<memory::Pipeline> pipeline);

  // Any thread.
  absl::Status Submit(EngineRequest request);
  EngineStats Stats() const;

  // The engine thread.
  void Loop();
  bool TakeMail();
  void Intake(Clock::time_point now);
  void EndDue(Clock::time_point now);
  void FindDue(std::span<Request* const> requests, Clock::time_point now);
  void OpenMemories(Clock::time_point now);
  void TendParked(Clock::time_point now);
  void LoseResidents(Clock::time_point now);
  void Step();
  void ReportStep(Request* request, Clock::time_point now);
  void BeginSpans(std::span<const PlannedSequence> plan);
  void ReportSpans(Request* request);
  void Refuse(Request* request, absl::Status status, Clock::time_point now);
  void Finish(Request* request, EngineFinish finish, absl::Status status, Clock::time_point now);
  void EndAll();
  void PublishStats();

  const EngineOptions options;
  const RequestLimits limits;
  EngineSink* const sink;
  const std::unique_ptr<devices::KvCache> cache;
  Mailbox mailbox;

  mutable std::mutex stats_mutex;
  EngineStats stats;  // guarded by stats_mutex

  // The engine thread's own.
  Scheduler scheduler;
  RequestMemory memory;
  ForwardStep forward;
  StepReport report;
  StepSampler sampler;
  SpanRecorder spans;
  std::vector<Request*> arrived;
  std::vector<Request*> due;  // requests that a function is about to end or to open
  bool cancelled_arrived = false;
  Clock::time_point next_deadline = Clock::time_point::max();
  EngineStats counts;  // published as `stats`
  std::thread thread;
};

Engine::Impl::Impl(const EngineOptions& engine_options, model::Transformer* transformer,
                   devices::Device* device, EngineSink* engine_sink,
                   std::unique_ptr<devices::KvCache> kv_cache, std::unique_ptr<memory::Pipeline> pipeline)
    : options(engine_options),
      limits(LimitsOf(engine_options, *transformer, *kv_cache, pipeline.get())),
      sink(engine_sink),
      cache(std::move(kv_cache)),
      mailbox(options.max_running, options.max_waiting, options.max_sessions),
      scheduler(SchedulerOptionsOf(options, *cache)),
      memory(std::move(pipeline), ParkingOptionsOf(options), &scheduler),
      forward(transformer, cache.get(), memory.pipeline()),
      sampler(transformer, device, &report),
      spans(WorkModelOf(*transformer, *cache), options.max_running) {
  arrived.reserve(static_cast<size_t>(MaxLive(options)));
  due.reserve(static_cast<size_t>(MaxLive(options)));
  PublishStats();
  thread = std::thread([this] { Loop(); });
}

absl::Status Engine::Impl::Submit(EngineRequest request) {
  LowerToPool(limits, &request);
  MNEMO_RETURN_IF_ERROR(CheckRequest(request, limits));
  auto made = std::make_unique<Request>(std::move(request), mailbox.NextArrival(), Clock::now());
  made->residence.share = ResidencyOf(made->spec.attention, made->max_positions(), limits);
  return mailbox.Post(std::move(made));
}

EngineStats Engine::Impl::Stats() const {
  std::lock_guard lock(stats_mutex);
  return stats;
}

void Engine::Impl::Loop() {
  while (TakeMail()) {
    report.BeginTurn();
    const Clock::time_point now = Clock::now();
    Intake(now);
    EndDue(now);
    TendParked(now);
    scheduler.Admit(now);
    OpenMemories(now);
    Step();
    PublishStats();
    report.Deliver(sink);
  }
  EndAll();
}

// Sleeps while there is nothing to do. False when the engine is to stop.
bool Engine::Impl::TakeMail() {
  const bool idle = scheduler.running().empty() && scheduler.waiting().empty();
  if (idle) sink->BeforePause();
  do {
    if (options.progress != nullptr) options.progress->fetch_add(1, std::memory_order_relaxed);
    if (idle && memory.pipeline() != nullptr && memory.pipeline()->Tend()) PublishStats();
  } while (idle && !mailbox.Wait(kIdleTurn) && memory.parking().empty());
  return mailbox.Take(&arrived, &scheduler.sessions());
}

void Engine::Impl::Intake(Clock::time_point now) {
  for (Request* request : arrived) {
    scheduler.Add(request);
    // Its Cancel may have come, and been looked for, before it was here.
    if (request->cancelled.load(std::memory_order_relaxed)) cancelled_arrived = true;
    if (request->spec.deadline.has_value()) next_deadline = std::min(next_deadline, *request->spec.deadline);
    // A replay may have been complete already.
    const EngineFinish outcome = request->Outcome();
    if (outcome != EngineFinish::kNone) Finish(request, outcome, absl::OkStatus(), now);
  }
  arrived.clear();
}

void Engine::Impl::EndDue(Clock::time_point now) {
  const bool cancelled = mailbox.TakeCancelled() || cancelled_arrived;
  if (!cancelled && now < next_deadline) return;
  cancelled_arrived = false;
  next_deadline = Clock::time_point::max();
  due.clear();
  FindDue(scheduler.running(), now);
  FindDue(scheduler.waiting(), now);
  FindDue(memory.parking().requests(), now);
  for (Request* request : due) {
    Finish(request, EngineFinish::kError,
           request->cancelled.load(std::memory_order_relaxed)
               ? absl::CancelledError("the request was cancelled")
               : absl::DeadlineExceededError("the request's deadline passed"),
           now);
  }
}

// Adds cancelled and late requests to `due`; finds the next deadline of the others.
void Engine::Impl::FindDue(std::span<Request* const> requests, Clock::time_point now) {
  for (Request* request : requests) {
    const auto& deadline = request->spec.deadline;
    if (request->cancelled.load(std::memory_order_relaxed) || (deadline.has_value() && *deadline <= now)) {
      due.push_back(request);
    } else if (deadline.has_value()) {
      next_deadline = std::min(next_deadline, *deadline);
    }
  }
}

// Requests that were admitted and attend to a selection get their memory, or end before they have begun.
void Engine::Impl::OpenMemories(Clock::time_point now) {
  due.clear();
  memory.FindUnopened(&due);
  for (Request* request : due) {
    if (absl::Status status = memory.Open(request); !status.ok()) Refuse(request, std::move(status), now);
  }
}

void Engine::Impl::TendParked(Clock::time_point now) {
  due.clear();
  memory.TendParked(now, &due);
  for (Request* request : due) Refuse(request, memory.parking().Expired(), now);
}

// Running requests whose K and V went with the service begin again: in the worker where they may, otherwise
// as soon as there is another service.
void Engine::Impl::LoseResidents(Clock::time_point now) {
  memory.ParkLost(now);
  TendParked(now);
}

void Engine::Impl::Step() {
  if (!memory.KeepResidents()) LoseResidents(Clock::now());
  const std::span<const PlannedSequence> plan = scheduler.Plan();
  const bool has_prompt = std::any_of(plan.begin(), plan.end(),
                                      [](const PlannedSequence& planned) { return planned.row_count > 1; });
  if (plan.empty() || has_prompt) sink->BeforePause();
  if (plan.empty()) return;
  ++counts.steps;
  report.Reserve(plan.size());
  sampler.Collect(plan);
  BeginSpans(plan);
  if (!forward.Run(plan)) {
    LoseResidents(Clock::now());
    return;
  }
  scheduler.Commit();
  counts.generated_tokens += static_cast<uint64_t>(sampler.Sample());
  spans.End(NowNs());
  const Clock::time_point now = Clock::now();
  // An end tells the spans of all: energy of the time is divided among them at once.
  const bool has_end = std::any_of(plan.begin(), plan.end(), [](const PlannedSequence& planned) {
    return planned.request->Outcome() != EngineFinish::kNone;
  });
  for (const PlannedSequence& planned : plan) {
    if (has_end || SpanRecorder::IsDue(*planned.request)) ReportSpans(planned.request);
  }
  for (const PlannedSequence& planned : plan) ReportStep(planned.request, now);
}

// Completes the event of a request that the step computed rows of, and ends the request when it has all.
void Engine::Impl::ReportStep(Request* request, Clock::time_point now) {
  const EngineFinish outcome = request->Outcome();
  if (EngineEvent* event = report.EventWithTokens(*request); event != nullptr) {
    const bool first = StepReport::NoteOutput(request, now);
    const bool tells_memory =
        request->residence.memory != nullptr && (first || request->output_count() % kReportTokens == 0);
    if (first || tells_memory) StepReport::FillSummary(*request, now, event);
    if (tells_memory) event->memory_steps = memory.StepsOf(*request);
  }
  if (outcome != EngineFinish::kNone) Finish(request, outcome, absl::OkStatus(), now);
}

void Engine::Impl::BeginSpans(std::span<const PlannedSequence> plan) {
  const int64_t now_ns = NowNs();
  for (const PlannedSequence& planned : plan) {
    if (SpanRecorder::HasPaused(*planned.request, now_ns)) ReportSpans(planned.request);
  }
  spans.Begin(plan, now_ns);
}

void Engine::Impl::ReportSpans(Request* request) {
  static const std::string no_service;
  if (request->spans.first_ns == 0) return;
  SpanRecorder::Take(request, memory.pipeline() == nullptr ? no_service : memory.pipeline()->service_name(),
                     &report.EventOf(request).spans);
}

// Ends a request that is not to be sent anywhere else either. `request` is gone afterwards.
void Engine::Impl::Refuse(Request* request, absl::Status status, Clock::time_point now) {
  report.EventOf(request).refused = true;
  Finish(request, EngineFinish::kError, std::move(status), now);
}

// `request` is gone afterwards.
void Engine::Impl::Finish(Request* request, EngineFinish finish, absl::Status status, Clock::time_point now) {
  ReportSpans(request);
  EngineEvent& event = report.EventOf(request);
  event.finish = finish;
  event.status = std::move(status);
  StepReport::FillSummary(*request, now, &event);
  event.memory_steps = memory.StepsOf(*request);
  memory.Close(request, &event.memory_fallbacks, &event.memory_fallback_reason);
  if (!memory.Unpark(request)) scheduler.Remove(request);
  mailbox.Destroy(request);
}

void Engine::Impl::EndAll() {
  report.BeginTurn();
  const Clock::time_point now = Clock::now();
  Intake(now);
  due.clear();
  for (const auto requests : {scheduler.running(), scheduler.waiting(), memory.parking().requests()}) {
    due.insert(due.end(), requests.begin(), requests.end());
  }
  for (Request* request : due) {
    Finish(request, EngineFinish::kError, absl::CancelledError("the worker stops"), now);
  }
  PublishStats();
  report.Deliver(sink);
}

void Engine::Impl::PublishStats() {
  counts.running = static_cast<int32_t>(scheduler.running().size());
  counts.waiting = static_cast<int32_t>(scheduler.waiting().size() + memory.parking().requests().size());
  counts.kv_pages_used = scheduler.cache().used_count();
  counts.kv_pages_cached = scheduler.cache().cached_count();
  counts.kv_pages_total = scheduler.cache().page_count();
  counts.extra_pages_used = scheduler.extra_pages_used();
  counts.extra_pages_total = cache->shape().extra_pages;
  counts.preemptions = scheduler.preemptions();
  counts.prefix_queries_tokens = scheduler.prefix_queries_tokens();
  counts.prefix_hit_tokens = scheduler.prefix_hit_tokens();
  counts.prompt_tokens = scheduler.prompt_tokens();
  if (memory.pipeline() != nullptr) counts.memory = memory.pipeline()->Stats();
  std::lock_guard lock(stats_mutex);
  stats = counts;
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       model::Transformer* transformer,
                                                       devices::Device* device, EngineSink* sink) {
  MNEMO_RETURN_IF_ERROR(CheckOptions(options, *transformer));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<devices::KvCache> cache,
                         device->CreateKvCache(CacheShapeOf(options, *transformer)));
  std::unique_ptr<memory::Pipeline> pipeline;
  if (!transformer->options().indexed_layers.empty()) {
    MNEMO_ASSIGN_OR_RETURN(pipeline, memory::Pipeline::Create(PipelineOptionsOf(options, *transformer),
                                                              device, cache.get(), options.attach_memory));
  }
  return std::unique_ptr<Engine>(new Engine(
      std::make_unique<Impl>(options, transformer, device, sink, std::move(cache), std::move(pipeline))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() {
  impl_->mailbox.Stop();
  impl_->thread.join();
}
absl::Status Engine::Submit(EngineRequest request) { return impl_->Submit(std::move(request)); }
void Engine::Cancel(uint64_t id, uint32_t attempt) { impl_->mailbox.Cancel(id, attempt); }
void Engine::EndSession(const std::string& session_id) { impl_->mailbox.EndSession(session_id); }
EngineStats Engine::Stats() const { return impl_->Stats(); }
void Engine::SetReportsSpans(bool reports) { impl_->spans.SetEnabled(reports); }

}  // namespace mnemo::worker
