#include "server/worker/engine.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "server/memory/placement.h"
#include "server/model/transformer.h"
#include "server/worker/request.h"
#include "server/worker/scheduler.h"

namespace mnemo::worker {
namespace {

using Clock = Request::Clock;

// What sparse attention cost is told every so many tokens, so that it is known when the worker dies.
constexpr int kReportTokens = 16;

// An idle engine shows a watchdog that often that it is alive.
constexpr std::chrono::milliseconds kIdleTurn{50};

absl::Status CheckOption(std::string_view name, int64_t value, int64_t low, int64_t high,
                         std::string_view why = "") {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; allowed: {} to {}{}", name, value, low, high, why);
}

absl::Status CheckOptions(const EngineOptions& options, const model::Transformer& transformer) {
  const model::TransformerOptions& model = transformer.options();
  MNEMO_RETURN_IF_ERROR(CheckOption("max_batch_rows", options.max_batch_rows, 1, model.max_rows,
                                    ", the rows the transformer was made for"));
  MNEMO_RETURN_IF_ERROR(CheckOption("max_running", options.max_running, 1, 65536));
  if (std::min(options.max_running, options.max_batch_rows) > model.max_sequences) {
    return InvalidArgument(
        "max_running is {} and max_batch_rows {}; allowed: one of them at most {}, the sequences the "
        "transformer was made for",
        options.max_running, options.max_batch_rows, model.max_sequences);
  }
  MNEMO_RETURN_IF_ERROR(CheckOption("max_waiting", options.max_waiting, 0, 1 << 20));
  MNEMO_RETURN_IF_ERROR(CheckOption("context_tokens", options.context_tokens, 0,
                                    transformer.config().context_tokens, ", the model's context"));
  MNEMO_RETURN_IF_ERROR(CheckOption("kv_pages", options.kv_pages, 1, 1 << 24));
  MNEMO_RETURN_IF_ERROR(CheckOption("reserve_tokens", options.reserve_tokens, 1, 1 << 20));
  MNEMO_RETURN_IF_ERROR(CheckOption("max_sessions", options.max_sessions, 0, 1 << 20));
  return CheckOption("extra_pages", options.extra_pages, 0, 1 << 24);
}

int ContextTokens(const EngineOptions& options, const model::Transformer& transformer) {
  return options.context_tokens > 0 ? options.context_tokens : transformer.config().context_tokens;
}

bool KeepsKvInService(const EngineOptions& options, const model::Transformer& transformer) {
  return options.extra_pages > 0 && options.attach_memory && !transformer.options().indexed_layers.empty();
}

// The worker's own pool, and what sequences need that have K and V elsewhere.
devices::KvCacheShape CacheShape(const EngineOptions& options, const model::Transformer& transformer) {
  devices::KvCacheShape shape = transformer.KvShape(options.kv_pages);
  if (!KeepsKvInService(options, transformer)) return shape;
  shape.extra_pages = options.extra_pages;
  shape.staging_pages = devices::PagesFor(ContextTokens(options, transformer));
  return shape;
}

memory::PipelineOptions MemoryOptions(const EngineOptions& options, const model::Transformer& transformer) {
  memory::PipelineOptions made;
  made.layers = transformer.options().indexed_layers;
  made.shape = memory::ShapeOf(transformer);
  made.methods = options.methods;
  made.max_queries = std::min(options.max_running, options.max_batch_rows);
  made.context_tokens = ContextTokens(options, transformer);
  made.max_indexes = options.max_running + options.max_waiting;
  made.pages = options.kv_pages;
  made.placement = options.placement;
  made.kv_in_service = KeepsKvInService(options, transformer);
  return made;
}

}  // namespace

struct Engine::Impl {
  Impl(const EngineOptions& engine_options, model::Transformer* engine_transformer,
       devices::Device* engine_device, EngineSink* engine_sink, std::unique_ptr<devices::KvCache> kv_cache,
       std::unique_ptr<memory::Pipeline> pipeline);

  // Any thread.
  absl::Status Submit(EngineRequest request);
  void Cancel(uint64_t id, uint32_t attempt);
  void EndSession(const std::string& session_id);
  EngineStats Stats() const;
  void Stop();

  // The engine thread.
  void Loop();
  bool TakeMail();
  void Intake(Clock::time_point now);
  void EndDue(Clock::time_point now);
  void EndDueIn(std::span<Request* const> requests, Clock::time_point now);
  void Step();
  void OpenMemories(Clock::time_point now);
  absl::Status OpenMemory(Request* request);
  // It is not refused for its placement any more.
  static bool HasBegun(const Request& request) { return request.spec.begun || request.reported; }
  // Whether a request that was to be resident may have its K and V here.
  bool MayStay(const Request& request) const {
    return !memory::ChoosePlacement(request.spec.attention.placement, {}, HasBegun(request)).insists &&
           request.max_positions() <= limits.kv_pages * devices::kPageTokens;
  }
  void CloseMemory(Request* request);
  // What the request spent in all.
  std::vector<memory::MemoryStepStat> StepsOf(const Request& request) const;
  void Park(Request* request);
  void KeepResidents();
  void Stage(Request* request, model::Transformer::Sequence* sequence);
  void LoseResidents(Clock::time_point now);
  void TendParked(Clock::time_point now);
  bool Forward(std::span<const PlannedSequence> plan);
  absl::Status TryForward(std::span<const PlannedSequence> plan);
  void CollectWants(std::span<const PlannedSequence> plan);
  void SampleWants();
  void Take(const devices::SampleResult& result, size_t want_index);
  EngineEvent& EventOf(Request* request);
  void FillSummary(const Request& request, Clock::time_point now, EngineEvent* event) const;
  void Finish(Request* request, EngineFinish finish, absl::Status status, Clock::time_point now);
  void PublishStats();
  void Deliver();

  // Logits of one row of the step and what they are for: the next output token, or the score of the prompt
  // token at `position` + 1.
  struct Want {
    Request* request = nullptr;
    int32_t position = 0;
    bool output = false;
  };
  using Key = std::pair<uint64_t, uint32_t>;

  const EngineOptions options;
  const RequestLimits limits;
  model::Transformer* const transformer;
  devices::Device* const device;
  EngineSink* const sink;
  const std::unique_ptr<devices::KvCache> cache;
  const std::unique_ptr<memory::Pipeline> memory;  // nullptr: the model has no indexed layers

  std::mutex mutex;  // guards this group
  std::condition_variable mail_came;
  absl::flat_hash_map<Key, std::unique_ptr<Request>> live;
  std::vector<Request*> inbox;
  absl::flat_hash_set<std::string> ended_sessions;
  bool end_all_sessions = false;
  bool stopping = false;
  std::atomic<bool> cancel_came{false};
  std::atomic<uint64_t> arrivals{0};

  mutable std::mutex stats_mutex;
  EngineStats stats;

  // The engine thread's own.
  Scheduler scheduler;
  std::vector<Request*> arrived;
  std::vector<Request*> due;
  std::vector<Request*> parked;  // wait for a service to keep K and V in; not the scheduler's
  std::vector<memory::Pipeline::StagedPage> staged;
  int32_t staged_count = 0;  // of this step
  Clock::time_point next_deadline = Clock::time_point::max();
  uint64_t turn = 0;
  EngineStats counts;
  std::vector<EngineEvent> events;
  std::vector<int32_t> ids;
  std::vector<model::Transformer::Sequence> sequences;
  std::vector<Want> wants;
  std::vector<int32_t> want_rows;  // [wants]
  std::vector<devices::SampleRow> sample_rows;
  std::vector<devices::SampleResult> sample_results;
  std::thread thread;
};

Engine::Impl::Impl(const EngineOptions& engine_options, model::Transformer* engine_transformer,
                   devices::Device* engine_device, EngineSink* engine_sink,
                   std::unique_ptr<devices::KvCache> kv_cache, std::unique_ptr<memory::Pipeline> pipeline)
    : options(engine_options),
      limits{.vocabulary = engine_transformer->config().vocabulary,
             .context_tokens = ContextTokens(engine_options, *engine_transformer),
             .kv_pages = engine_options.kv_pages,
             .extra_pages = kv_cache->shape().extra_pages,
             .any_placement_in_service =
                 engine_options.placement == memory::AttentionSettings::Placement::kMemoryService,
             .memory = pipeline == nullptr ? memory::MemoryShape() : pipeline->options().shape},
      transformer(engine_transformer),
      device(engine_device),
      sink(engine_sink),
      cache(std::move(kv_cache)),
      memory(std::move(pipeline)),
      scheduler({.max_batch_rows = options.max_batch_rows,
                 .max_running = options.max_running,
                 .max_live = options.max_running + options.max_waiting,
                 .kv_pages = options.kv_pages,
                 .extra_pages = cache->shape().extra_pages,
                 .staging_pages = cache->shape().staging_pages,
                 .reserve_tokens = options.reserve_tokens,
                 .prefix_cache = options.prefix_cache,
                 .max_sessions = options.max_sessions,
                 .hash_seed = 1 + uint64_t{std::random_device{}()}}) {
  const size_t max_live = static_cast<size_t>(options.max_running) + options.max_waiting;
  live.reserve(max_live);
  inbox.reserve(max_live);
  arrived.reserve(max_live);
  due.reserve(max_live);
  parked.reserve(max_live);
  staged.reserve(static_cast<size_t>(cache->shape().staging_pages));
  ids.reserve(options.max_batch_rows);
  sequences.reserve(std::min(options.max_running, options.max_batch_rows));
  wants.reserve(options.max_batch_rows);
  want_rows.reserve(options.max_batch_rows);
  sample_rows.reserve(transformer->options().max_logit_rows);
  sample_results.resize(transformer->options().max_logit_rows);
  PublishStats();
  thread = std::thread([this] { Loop(); });
}

absl::Status Engine::Impl::Submit(EngineRequest request) {
  LowerToPool(limits, &request);
  MNEMO_RETURN_IF_ERROR(CheckRequest(request, limits));
  const Key key(request.id, request.attempt);
  auto made = std::make_unique<Request>(std::move(request), arrivals.fetch_add(1), Clock::now());
  made->residency = ResidencyOf(made->spec.attention, made->max_positions(), limits);
  {
    std::lock_guard lock(mutex);
    if (stopping) return absl::CancelledError("the worker stops");
    if (live.size() >= static_cast<size_t>(options.max_running) + options.max_waiting) {
      return ResourceExhausted(
          "{} requests are running or waiting; allowed: at most {} (max_running {} and max_waiting {})",
          live.size(), options.max_running + options.max_waiting, options.max_running, options.max_waiting);
    }
    auto& slot = live[key];
    if (slot != nullptr) {
      return InvalidArgument("id {} with attempt {} is in use by a live request", key.first, key.second);
    }
    inbox.push_back(made.get());
    slot = std::move(made);
  }
  mail_came.notify_one();
  return absl::OkStatus();
}

void Engine::Impl::Cancel(uint64_t id, uint32_t attempt) {
  {
    std::lock_guard lock(mutex);
    const auto found = live.find(Key(id, attempt));
    if (found == live.end()) return;
    found->second->cancelled.store(true, std::memory_order_relaxed);
    cancel_came.store(true, std::memory_order_release);
  }
  mail_came.notify_one();
}

void Engine::Impl::EndSession(const std::string& session_id) {
  {
    std::lock_guard lock(mutex);
    // A bound for the list: a session's prefix is a hint, so that forgetting too much is no error.
    if (ended_sessions.size() < static_cast<size_t>(options.max_sessions)) {
      ended_sessions.insert(session_id);
    } else {
      end_all_sessions = true;
    }
  }
  mail_came.notify_one();
}

EngineStats Engine::Impl::Stats() const {
  std::lock_guard lock(stats_mutex);
  return stats;
}

void Engine::Impl::Stop() {
  {
    std::lock_guard lock(mutex);
    stopping = true;
  }
  mail_came.notify_one();
  thread.join();
}

void Engine::Impl::Loop() {
  while (TakeMail()) {
    ++turn;
    const Clock::time_point now = Clock::now();
    Intake(now);
    EndDue(now);
    TendParked(now);
    scheduler.Admit(now);
    OpenMemories(now);
    Step();
    PublishStats();
    Deliver();
  }
  ++turn;
  const Clock::time_point now = Clock::now();
  Intake(now);
  due.assign(scheduler.running().begin(), scheduler.running().end());
  due.insert(due.end(), scheduler.waiting().begin(), scheduler.waiting().end());
  due.insert(due.end(), parked.begin(), parked.end());
  for (Request* request : due) {
    Finish(request, EngineFinish::kError, absl::CancelledError("the worker stops"), now);
  }
  PublishStats();
  Deliver();
}

// Sleeps while there is nothing to do. False when the engine is to stop.
bool Engine::Impl::TakeMail() {
  const bool idle = scheduler.running().empty() && scheduler.waiting().empty();
  if (idle) sink->BeforePause();
  std::unique_lock lock(mutex);
  const auto ready = [this] {
    return stopping || end_all_sessions || !inbox.empty() || !ended_sessions.empty();
  };
  do {
    if (options.progress != nullptr) options.progress->fetch_add(1, std::memory_order_relaxed);
    if (idle && memory != nullptr && memory->Tend()) PublishStats();
  } while (idle && !mail_came.wait_for(lock, kIdleTurn, ready) && parked.empty());
  arrived.swap(inbox);
  if (end_all_sessions) scheduler.sessions().ForgetAll();
  for (const std::string& session : ended_sessions) scheduler.sessions().Forget(session);
  ended_sessions.clear();
  end_all_sessions = false;
  return !stopping;
}

void Engine::Impl::Intake(Clock::time_point now) {
  for (Request* request : arrived) {
    scheduler.Add(request);
    // Its Cancel may have come, and been looked for, before it was here.
    if (request->cancelled.load(std::memory_order_relaxed))
      cancel_came.store(true, std::memory_order_relaxed);
    if (request->spec.deadline.has_value()) next_deadline = std::min(next_deadline, *request->spec.deadline);
    // A replay of what was complete already.
    const EngineFinish outcome = request->Outcome();
    if (outcome != EngineFinish::kNone) Finish(request, outcome, absl::OkStatus(), now);
  }
  arrived.clear();
}

void Engine::Impl::EndDue(Clock::time_point now) {
  if (!cancel_came.exchange(false, std::memory_order_acquire) && now < next_deadline) return;
  next_deadline = Clock::time_point::max();
  due.clear();
  EndDueIn(scheduler.running(), now);
  EndDueIn(scheduler.waiting(), now);
  EndDueIn(parked, now);
  for (Request* request : due) {
    const bool cancelled = request->cancelled.load(std::memory_order_relaxed);
    Finish(request, EngineFinish::kError,
           cancelled ? absl::CancelledError("the request was cancelled")
                     : absl::DeadlineExceededError("the request's deadline passed"),
           now);
  }
}

// Adds to `due` what is cancelled or late; of the others finds the next deadline.
void Engine::Impl::EndDueIn(std::span<Request* const> requests, Clock::time_point now) {
  for (Request* request : requests) {
    const auto& deadline = request->spec.deadline;
    if (request->cancelled.load(std::memory_order_relaxed) || (deadline.has_value() && *deadline <= now)) {
      due.push_back(request);
    } else if (deadline.has_value()) {
      next_deadline = std::min(next_deadline, *deadline);
    }
  }
}

void Engine::Impl::Step() {
  KeepResidents();
  const std::span<const PlannedSequence> plan = scheduler.Plan();
  const bool has_prompt = std::any_of(plan.begin(), plan.end(),
                                      [](const PlannedSequence& sequence) { return sequence.row_count > 1; });
  if (plan.empty() || has_prompt) sink->BeforePause();
  if (plan.empty()) return;
  ++counts.steps;
  if (events.capacity() == 0) events.reserve(plan.size());
  CollectWants(plan);
  if (!Forward(plan)) {
    LoseResidents(Clock::now());
    return;
  }
  scheduler.Commit();
  SampleWants();
  const Clock::time_point now = Clock::now();
  for (const PlannedSequence& sequence : plan) {
    Request* request = sequence.request;
    const EngineFinish outcome = request->Outcome();
    if (request->event_turn == turn && !events[request->event_index].tokens.empty()) {
      EngineEvent& event = events[request->event_index];
      const bool first = !std::exchange(request->reported, true);
      if (first) request->first_token = now;
      const bool tells_memory =
          request->memory != nullptr && (first || request->output_count() % kReportTokens == 0);
      if (first || tells_memory) FillSummary(*request, now, &event);
      if (tells_memory) event.memory_steps = StepsOf(*request);
    }
    if (outcome != EngineFinish::kNone) Finish(request, outcome, absl::OkStatus(), now);
  }
}

// Which rows' logits the step needs. Before Forward, since the positions are those to be computed.
void Engine::Impl::CollectWants(std::span<const PlannedSequence> plan) {
  wants.clear();
  want_rows.clear();
  int32_t row = 0;
  for (const PlannedSequence& sequence : plan) {
    Request* request = sequence.request;
    const int begin = request->computed;
    const int end = begin + sequence.row_count;
    if (request->scoring()) {
      if (request->next_scored == 0) {  // nothing stands before it that could give it a probability
        EventOf(request).prompt_tokens.push_back({.index = 0, .id = request->ids[0]});
        request->next_scored = 1;
      }
      const int last = std::min(end, request->prompt_count() - 1);
      for (int position = std::max(begin, request->next_scored - 1); position < last; ++position) {
        wants.push_back({.request = request, .position = position});
        want_rows.push_back(row + position - begin);
      }
    }
    // Output that is known already (replay, preemption) is only fed.
    if (end == static_cast<int>(request->ids.size()) && request->spec.max_tokens > 0) {
      wants.push_back({.request = request, .position = end - 1, .output = true});
      want_rows.push_back(row + sequence.row_count - 1);
    }
    row += sequence.row_count;
  }
}

// What was admitted and attends to a selection gets its index, or ends before it has begun.
void Engine::Impl::OpenMemories(Clock::time_point now) {
  if (memory == nullptr) return;
  due.clear();
  for (Request* request : scheduler.running()) {
    if (request->memory == nullptr &&
        request->spec.attention.method != memory::AttentionSettings::Method::kDense) {
      due.push_back(request);
    }
  }
  for (Request* request : due) {
    absl::Status status = OpenMemory(request);
    if (status.ok()) continue;
    EventOf(request).refused = true;
    Finish(request, EngineFinish::kError, std::move(status), now);
  }
}

absl::Status Engine::Impl::OpenMemory(Request* request) {
  absl::StatusOr<memory::SequenceMemory*> opened;
  const memory::AttentionSettings& settings = request->spec.attention;
  if (!request->residency.resident()) {
    opened = memory->Open(settings, request->max_positions(), request->prefill_end(), request->ids,
                          HasBegun(*request));
  } else {
    opened = memory->OpenResident(settings, request->max_positions(), request->prefill_end(), request->ids,
                                  request->residency.hot_pages);
    if (!opened.ok() && MayStay(*request)) {
      // The worker keeps its K and V instead; it waits for its pages like any other.
      request->why_not_resident = memory::FallbackReason(opened.status());
      scheduler.Suspend(request);
      request->residency = {};
      request->lost_at.reset();
      scheduler.Add(request);
      return absl::OkStatus();
    }
  }
  // A full service refuses what has not begun; for the others there will be room again.
  const bool full = absl::IsResourceExhausted(opened.status()) && HasBegun(*request);
  if ((absl::IsUnavailable(opened.status()) || full) && request->residency.resident()) {
    const Clock::time_point now = Clock::now();
    if (!request->lost_at.has_value()) request->lost_at = now;
    request->parked_until = full ? now + kIdleTurn : now;
    Park(request);
    return absl::OkStatus();
  }
  if (!opened.ok()) return opened.status();
  if (const std::string why = std::exchange(request->why_not_resident, ""); !why.empty()) {
    // Its index may have found room in the service nevertheless; if not, that has been counted.
    std::string reason;
    if (memory->FallbacksOf(**opened, &reason) == 0) memory->CountFallback(why);
  }
  request->memory = *opened;
  request->kept_pages = 0;
  request->lost_at.reset();
  return absl::OkStatus();
}

std::vector<memory::MemoryStepStat> Engine::Impl::StepsOf(const Request& request) const {
  std::vector<memory::MemoryStepStat> steps = request.lost_steps;
  if (request.memory == nullptr) return steps;
  for (memory::MemoryStepStat& more : memory->StepsOf(*request.memory)) {
    const auto same = std::find_if(steps.begin(), steps.end(), [&more](const auto& step) {
      return step.step == more.step && step.device == more.device;
    });
    if (same == steps.end()) {
      steps.push_back(std::move(more));
      continue;
    }
    same->Add(more);
  }
  return steps;
}

void Engine::Impl::CloseMemory(Request* request) {
  memory->Close(request->memory);
  request->memory = nullptr;
}

// A running request waits for a service, or for room there, and holds nothing meanwhile.
void Engine::Impl::Park(Request* request) {
  scheduler.Suspend(request);
  parked.push_back(request);
}

// What earlier steps completed of resident sequences goes to the service, so that its pages may be given
// away.
void Engine::Impl::KeepResidents() {
  if (cache->shape().extra_pages == 0) return;
  bool lost = false;
  for (Request* request : scheduler.running()) {
    if (!request->residency.resident() || request->memory == nullptr) continue;
    if (std::exchange(request->hot_pages_changed, false)) {
      memory::Pipeline::SetHotPages(request->memory, request->hot_pages);
    }
    lost = lost || memory::Pipeline::Lost(*request->memory) ||
           !memory->Keep(request->memory, request->computed, request->indexed_pages).ok();
    request->kept_pages = memory::Pipeline::KeptPages(*request->memory);
  }
  if (lost) LoseResidents(Clock::now());
}

// Running requests whose K and V went with the service begin again: in the worker where they may, otherwise
// as soon as there is another service.
void Engine::Impl::LoseResidents(Clock::time_point now) {
  due.clear();
  for (Request* request : scheduler.running()) {
    if (request->memory != nullptr && memory::Pipeline::Lost(*request->memory)) due.push_back(request);
  }
  for (Request* request : due) {
    memory->CountFallback("kv_lost");
    request->lost_steps = StepsOf(*request);
    CloseMemory(request);
    request->lost_at = request->parked_until = now;
    Park(request);
  }
  TendParked(now);
}

void Engine::Impl::TendParked(Clock::time_point now) {
  if (parked.empty()) return;
  memory->Tend();
  due.clear();
  std::erase_if(parked, [&](Request* request) {
    if ((memory->service_attached() && now >= request->parked_until) || MayStay(*request)) {
      scheduler.Add(request);
      return true;
    }
    if (now - *request->lost_at >= options.service_wait) due.push_back(request);
    return false;
  });
  for (Request* request : due) {
    EventOf(request).refused = true;
    Finish(request, EngineFinish::kError,
           Unavailable("memory.kv_wait_ms: for {} ms there was no memory service with room for K and V",
                       options.service_wait.count()),
           now);
  }
}

// Rows of a resident sequence that attend to everything: what is not here stands in staging pages.
void Engine::Impl::Stage(Request* request, model::Transformer::Sequence* sequence) {
  request->staged_pages = request->indexed_pages;
  staged.clear();
  const int pages = devices::PagesFor(request->computed);
  for (int page = 0; page < pages; ++page) {
    int32_t& at = request->staged_pages[static_cast<size_t>(page)];
    if (at >= 0) continue;
    at = cache->shape().pages + staged_count++;
    staged.push_back({page, at});
  }
  MNEMO_CHECK(staged_count <= cache->shape().staging_pages);
  memory->AddStaged(request->memory, staged);
  sequence->indexed_pages = request->staged_pages.data();
}

// False: the step counts for nothing, since resident sequences of it are lost.
bool Engine::Impl::Forward(std::span<const PlannedSequence> plan) {
  ids.clear();
  for (const PlannedSequence& sequence : plan) {
    const auto first = sequence.request->ids.begin() + sequence.request->computed;
    ids.insert(ids.end(), first, first + sequence.row_count);
  }
  // What the steps before completed is indexed now, when their tokens are on their way already.
  for (const PlannedSequence& sequence : plan) {
    const Request& request = *sequence.request;
    if (request.memory != nullptr && !request.residency.resident())
      memory->CatchUp(request.memory, request.computed, request.pages);
  }
  // A step that lost the memory service counts for nothing: its sequences are the worker's own afterwards,
  // and the same positions are computed again.
  while (!TryForward(plan).ok()) {
    for (const PlannedSequence& sequence : plan) {
      if (sequence.request->memory != nullptr && memory::Pipeline::Lost(*sequence.request->memory))
        return false;
    }
  }
  return true;
}

// UNAVAILABLE: the memory service went; the next try does without.
absl::Status Engine::Impl::TryForward(std::span<const PlannedSequence> plan) {
  sequences.clear();
  if (memory != nullptr) memory->Begin();
  staged_count = 0;
  int32_t row = 0;
  for (const PlannedSequence& sequence : plan) {
    const Request& request = *sequence.request;
    const bool resident = request.residency.resident();
    // What Begin or a row before this one found. Rows of it have nothing to attend to, prompts' as little as
    // others.
    if (resident && memory::Pipeline::Lost(*request.memory))
      return Unavailable("the memory service went with the K and V it kept");
    sequences.push_back({.row_count = sequence.row_count,
                         .position_begin = request.computed,
                         .pages = request.pages.data(),
                         .indexed_pages = resident ? request.indexed_pages.data() : nullptr});
    if (memory != nullptr && request.memory != nullptr && !request.prefilling()) {
      MNEMO_CHECK(sequence.row_count == 1);
      sequences.back().sparse = memory->AddRow(request.memory, row, request.computed,
                                               resident ? request.indexed_pages : request.pages);
    }
    if (resident && sequences.back().sparse == nullptr) Stage(sequence.request, &sequences.back());
    if (memory != nullptr && sequences.back().sparse == nullptr) {
      memory->AddDense(int64_t{sequence.row_count} * (request.computed + (sequence.row_count + 1) / 2));
    }
    row += sequence.row_count;
  }
  if (memory == nullptr || memory->idle()) {
    transformer->Forward(cache.get(), ids, sequences);
    return absl::OkStatus();
  }
  MNEMO_RETURN_IF_ERROR(memory->Seal());
  transformer->Forward(cache.get(), ids, sequences, memory.get());
  return memory->End();
}

void Engine::Impl::SampleWants() {
  const size_t vocabulary = limits.vocabulary;
  const size_t rows_a_call = transformer->options().max_logit_rows;
  for (size_t begin = 0; begin < wants.size(); begin += rows_a_call) {
    const size_t count = std::min(rows_a_call, wants.size() - begin);
    const float* logits = transformer->Logits(std::span(want_rows).subspan(begin, count));
    sample_rows.clear();
    for (size_t i = 0; i < count; ++i) {
      const Want& want = wants[begin + i];
      const Request& request = *want.request;
      devices::SampleRow row{.logits = logits + i * vocabulary, .params = &request.spec.sampling};
      if (want.output) {
        row.counts = request.counts.counts();
        row.bias = request.spec.bias;
        row.index = request.output_count();
        row.alternatives = request.spec.logprobs;
      } else {
        row.forced_id = request.ids[want.position + 1];
        row.alternatives = request.spec.prompt_logprobs;
      }
      sample_rows.push_back(row);
    }
    device->Sample(sample_rows, limits.vocabulary, std::span(sample_results).first(count));
    for (size_t i = 0; i < count; ++i) Take(sample_results[i], begin + i);
  }
}

void Engine::Impl::Take(const devices::SampleResult& result, size_t want_index) {
  const Want& want = wants[want_index];
  Request* request = want.request;
  MNEMO_CHECK(result.id >= 0 && result.id < limits.vocabulary);
  EngineEvent& event = EventOf(request);
  if (!want.output) {
    event.prompt_tokens.push_back(
        {.index = want.position + 1, .id = result.id, .has_logprob = true, .detail = result});
    request->next_scored = want.position + 2;
    return;
  }
  EngineToken& token = event.tokens.emplace_back();
  token.index = request->output_count();
  token.id = result.id;
  token.has_logprob = request->spec.logprobs >= 0;
  if (token.has_logprob) token.detail = result;
  request->AppendOutput(result.id);
  ++counts.generated_tokens;
}

EngineEvent& Engine::Impl::EventOf(Request* request) {
  if (request->event_turn != turn) {
    request->event_turn = turn;
    request->event_index = static_cast<int>(events.size());
    EngineEvent& event = events.emplace_back();
    event.id = request->spec.id;
    event.attempt = request->spec.attempt;
  }
  return events[request->event_index];
}

void Engine::Impl::FillSummary(const Request& request, Clock::time_point now, EngineEvent* event) const {
  event->cached_prompt_tokens = request.cached_tokens;
  event->preemptions = request.preemptions;
  event->max_tokens = request.spec.max_tokens;
  event->queue_time = (request.was_admitted ? request.admitted : now) - request.submitted;
  if (!request.was_admitted) return;
  event->prefill_time = (request.reported ? request.first_token : now) - request.admitted;
  if (request.reported) event->decode_time = now - request.first_token;
}

// `request` is gone afterwards.
void Engine::Impl::Finish(Request* request, EngineFinish finish, absl::Status status, Clock::time_point now) {
  EngineEvent& event = EventOf(request);
  event.finish = finish;
  event.status = std::move(status);
  FillSummary(*request, now, &event);
  event.memory_steps = StepsOf(*request);
  if (request->memory != nullptr) {
    event.memory_fallbacks = memory->FallbacksOf(*request->memory, &event.memory_fallback_reason);
    CloseMemory(request);
  }
  if (std::erase(parked, request) == 0) scheduler.Remove(request);
  std::unique_ptr<Request> gone;  // destroyed outside the lock
  std::lock_guard lock(mutex);
  const auto found = live.find(Key(request->spec.id, request->spec.attempt));
  MNEMO_CHECK(found != live.end() && found->second.get() == request);
  gone = std::move(found->second);
  live.erase(found);
}

void Engine::Impl::PublishStats() {
  counts.running = static_cast<int32_t>(scheduler.running().size());
  counts.waiting = static_cast<int32_t>(scheduler.waiting().size() + parked.size());
  counts.kv_pages_used = scheduler.cache().used_count();
  counts.kv_pages_cached = scheduler.cache().cached_count();
  counts.kv_pages_total = scheduler.cache().page_count();
  counts.extra_pages_used = scheduler.extra_pages_used();
  counts.extra_pages_total = cache->shape().extra_pages;
  counts.preemptions = scheduler.preemptions();
  counts.prefix_queries_tokens = scheduler.prefix_queries_tokens();
  counts.prefix_hit_tokens = scheduler.prefix_hit_tokens();
  counts.prompt_tokens = scheduler.prompt_tokens();
  if (memory != nullptr) counts.memory = memory->Stats();
  std::lock_guard lock(stats_mutex);
  stats = counts;
}

void Engine::Impl::Deliver() {
  if (events.empty()) return;
  sink->OnStep(std::move(events));
  events = {};
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       model::Transformer* transformer,
                                                       devices::Device* device, EngineSink* sink) {
  MNEMO_RETURN_IF_ERROR(CheckOptions(options, *transformer));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<devices::KvCache> cache,
                         device->CreateKvCache(CacheShape(options, *transformer)));
  std::unique_ptr<memory::Pipeline> pipeline;
  if (!transformer->options().indexed_layers.empty()) {
    MNEMO_ASSIGN_OR_RETURN(pipeline, memory::Pipeline::Create(MemoryOptions(options, *transformer), device,
                                                              cache.get(), options.attach_memory));
  }
  return std::unique_ptr<Engine>(new Engine(
      std::make_unique<Impl>(options, transformer, device, sink, std::move(cache), std::move(pipeline))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { impl_->Stop(); }
absl::Status Engine::Submit(EngineRequest request) { return impl_->Submit(std::move(request)); }
void Engine::Cancel(uint64_t id, uint32_t attempt) { impl_->Cancel(id, attempt); }
void Engine::EndSession(const std::string& session_id) { impl_->EndSession(session_id); }
EngineStats Engine::Stats() const { return impl_->Stats(); }

}  // namespace mnemo::worker
