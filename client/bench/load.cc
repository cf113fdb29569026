#include "client/bench/load.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <unordered_map>

namespace mnemo::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kProgressInterval = std::chrono::milliseconds(200);

double ToSeconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }
double ToSeconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) * 1e-9;
}

}  // namespace

struct LoadRun::State {
  Clock::time_point begin;
  std::mutex mutex;  // guards all members below
  std::condition_variable changed;
  bool stopped = false;
  int64_t in_flight = 0;
  LoadProgress progress;
  std::vector<RequestRecord> records;
  // In flight, by index; null until Generate has returned.
  std::unordered_map<int64_t, std::shared_ptr<client::GenerateCall>> calls;
  Clock::time_point next_progress;

  double Now() const { return ToSeconds(Clock::now() - begin); }
  Clock::time_point At(double seconds) const {
    return begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }
  LoadProgress Progress() const {
    LoadProgress copy = progress;
    copy.elapsed = Now();
    return copy;
  }
  // Waits under `lock` until `ready` or `until`, and reports progress meanwhile. True when `ready` holds.
  template <typename Ready>
  bool Wait(std::unique_lock<std::mutex>& lock, Clock::time_point until, const OnProgress& on_progress,
            const Ready& ready) {
    while (!ready() && Clock::now() < until) {
      changed.wait_until(lock, std::min(until, Clock::now() + kProgressInterval), ready);
      if (Clock::now() < next_progress) continue;
      next_progress = Clock::now() + kProgressInterval;
      const LoadProgress now = Progress();
      lock.unlock();
      on_progress(now);
      lock.lock();
    }
    return ready();
  }
};

// Reads the clock before any other work on a message.
class LoadRun::Observer final : public client::GenerateObserver {
 public:
  Observer(std::shared_ptr<State> state, int64_t index, double due) : state_(std::move(state)) {
    record_.index = index;
    record_.due = due;
    record_.sent = state_->Now();
  }

  void OnMessage(v1::GenerateResponse message) override {
    const double now = state_->Now();
    if (message.has_started()) record_.prompt_tokens = message.started().prompt_token_count();
    if (message.has_delta() && message.delta().tokens_size() > 0) {
      if (record_.output_tokens == 0) {
        record_.first_token = now;
      } else {
        record_.gaps.push_back(static_cast<float>(now - record_.last_token));
      }
      record_.last_token = now;
      record_.output_tokens += message.delta().tokens_size();
    }
    if (message.has_final()) {
      record_.cached_prompt_tokens = message.final().usage().cached_prompt_tokens();
      record_.server_queue = ToSeconds(message.final().timing().queue());
      record_.server_first_token = ToSeconds(message.final().timing().time_to_first_token());
    }
  }

  void OnDone(const absl::Status& status) override {
    record_.end = state_->Now();
    record_.status = status;
    std::lock_guard lock(state_->mutex);
    --state_->in_flight;
    ++state_->progress.done;
    if (!status.ok()) ++state_->progress.failed;
    state_->progress.output_tokens += record_.output_tokens;
    state_->calls.erase(record_.index);
    state_->records.push_back(std::move(record_));
    state_->changed.notify_all();
  }

 private:
  std::shared_ptr<State> state_;
  RequestRecord record_;
};

LoadRun::LoadRun(std::vector<client::Client*> clients, const LoadOptions& options, MakeRequest make_request,
                 DueTime due_time)
    : state_(std::make_shared<State>()),
      clients_(std::move(clients)),
      options_(options),
      make_request_(std::move(make_request)),
      due_time_(std::move(due_time)) {}

LoadRun::~LoadRun() = default;

void LoadRun::Stop() {
  std::vector<std::shared_ptr<client::GenerateCall>> calls;
  {
    std::lock_guard lock(state_->mutex);
    state_->stopped = true;
    for (const auto& [index, call] : state_->calls) {
      if (call != nullptr) calls.push_back(call);
    }
    state_->changed.notify_all();
  }
  for (const auto& call : calls) call->Cancel();
}

std::optional<double> LoadRun::WaitForTurn(int64_t index, const OnProgress& on_progress) {
  State& state = *state_;
  const bool closed = options_.concurrency > 0;
  const int64_t slots = closed ? options_.concurrency : options_.max_in_flight;
  const double last_due = options_.duration_seconds.value_or(std::numeric_limits<double>::infinity());
  std::unique_lock lock(state.mutex);
  double due = 0;
  if (!closed) {
    due = due_time_(index);
    if (due > last_due) return std::nullopt;
    state.Wait(lock, state.At(due), on_progress, [&] { return state.stopped; });
  }
  const bool free =
      state.Wait(lock, closed && options_.duration_seconds ? state.At(last_due) : Clock::time_point::max(),
                 on_progress, [&] { return state.stopped || state.in_flight < slots; });
  if (state.stopped || !free) return std::nullopt;
  if (closed) due = state.Now();
  if (closed && due > last_due) return std::nullopt;
  ++state.in_flight;
  ++state.progress.sent;
  state.calls.emplace(index, nullptr);
  return due;
}

void LoadRun::Send(int64_t index, double due, v1::GenerateRequest request) {
  client::CallOptions call_options;
  call_options.retry.max_attempts = 1;  // a refusal is a result
  if (options_.request_timeout_seconds) {
    call_options.timeout =
        std::chrono::nanoseconds(static_cast<int64_t>(*options_.request_timeout_seconds * 1e9));
  }
  client::Client* const client = clients_[static_cast<size_t>(index) % clients_.size()];
  auto observer = std::make_shared<Observer>(state_, index, due);
  std::shared_ptr<client::GenerateCall> call = client->Generate(std::move(request), call_options, observer);

  std::unique_lock lock(state_->mutex);
  const auto entry = state_->calls.find(index);
  if (entry == state_->calls.end()) return;  // it has ended already
  entry->second = call;
  if (state_->stopped) {
    lock.unlock();
    call->Cancel();
  }
}

std::vector<RequestRecord> LoadRun::Run(const OnProgress& on_progress) {
  State& state = *state_;
  state.begin = state.next_progress = Clock::now();
  const int64_t count =
      options_.num_requests > 0 ? options_.num_requests : std::numeric_limits<int64_t>::max();
  for (int64_t index = 0; index < count; ++index) {
    // Made before it is due, so that its making costs no measured time.
    v1::GenerateRequest request = make_request_(index);
    const std::optional<double> due = WaitForTurn(index, on_progress);
    if (!due) break;
    Send(index, *due, std::move(request));
  }
  std::unique_lock lock(state.mutex);
  state.Wait(lock, Clock::time_point::max(), on_progress, [&] { return state.in_flight == 0; });
  const LoadProgress progress = state.Progress();
  std::vector<RequestRecord> records = std::move(state.records);
  lock.unlock();
  on_progress(progress);
  std::sort(records.begin(), records.end(),
            [](const RequestRecord& a, const RequestRecord& b) { return a.index < b.index; });
  return records;
}

}  // namespace mnemo::bench
