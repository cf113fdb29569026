#include "server/frontend/submission_output.h"

#include <algorithm>
#include <span>
#include <utility>

#include "server/frontend/duration.h"
#include "server/frontend/request_energy.h"

namespace mnemo::frontend {
namespace {

using std::chrono::nanoseconds;

using MemorySteps = google::protobuf::RepeatedPtrField<internal::v1::MemoryStep>;

// One entry for each step, method and device.
void AddMemorySteps(const MemorySteps& more, MemorySteps* sums) {
  for (const internal::v1::MemoryStep& step : more) {
    const auto same = std::find_if(sums->begin(), sums->end(), [&](const internal::v1::MemoryStep& sum) {
      return sum.step() == step.step() && sum.method() == step.method() && sum.device() == step.device();
    });
    if (same == sums->end()) {
      *sums->Add() = step;
      continue;
    }
    same->set_time_ns(same->time_ns() + step.time_ns());
    same->set_bytes_moved(same->bytes_moved() + step.bytes_moved());
    same->set_count(same->count() + step.count());
    same->set_round_trips(same->round_trips() + step.round_trips());
  }
}

}  // namespace

SubmissionOutput::SubmissionOutput(const ServedModel& model, const Submission& submission,
                                   Clock::time_point arrived, telemetry::Metrics* metrics,
                                   const attribution::EnergyMonitor* energy)
    : metrics_(metrics),
      energy_(energy),
      arrived_(arrived),
      prompt_tokens_(submission.submit.prompt_size()),
      builder_(model, submission.text, submission.submit) {
  v1::GenerateResponse response;
  v1::Started* started = response.mutable_started();
  started->set_request_id(submission.submit.request_id());
  started->set_model(model.name);
  started->set_seed(submission.submit.sampling().seed());
  started->set_prompt_token_count(prompt_tokens_);
  queue_.Push(std::move(response));
}

absl::Status SubmissionOutput::Add(const internal::v1::Event& event) {
  NoteSummary(event);
  dispatch_id_ = event.id();
  if (is_finished()) return absl::OkStatus();
  const Clock::time_point now = Clock::now();
  const int before = builder_.completion_tokens();
  MNEMO_RETURN_IF_ERROR(builder_.Add(event, &queue_));
  NoteTokens(builder_.completion_tokens() - before, now);
  return absl::OkStatus();
}

telemetry::RequestTimes SubmissionOutput::PushFinal(Clock::time_point dispatched, int replays) {
  const telemetry::RequestTimes times = Times(dispatched);
  v1::GenerateResponse response;
  v1::Final* final = response.mutable_final();
  final->set_finish_reason(builder_.reason());
  final->set_stop_matched(builder_.stop_matched());
  final->set_replays(replays);
  final->mutable_usage()->set_prompt_tokens(prompt_tokens_);
  final->mutable_usage()->set_cached_prompt_tokens(summary_.cached_prompt_tokens());
  final->mutable_usage()->set_completion_tokens(times.completion_tokens);
  v1::Timing* timing = final->mutable_timing();
  SetDuration(times.queue, timing->mutable_queue());
  SetDuration(times.prefill, timing->mutable_prefill());
  SetDuration(times.decode, timing->mutable_decode());
  if (times.has_first_token) SetDuration(times.time_to_first_token, timing->mutable_time_to_first_token());
  SetDuration(times.total, timing->mutable_total());
  FillMemorySteps(final);
  if (energy_ != nullptr && dispatch_id_.has_value()) FillEnergy(energy_->Estimate(*dispatch_id_), final);
  queue_.Push(std::move(response));
  return times;
}

void SubmissionOutput::NoteSummary(const internal::v1::Event& event) {
  if (!event.has_summary()) return;
  // The latest figures of an attempt count, and the sum over all attempts.
  if (event.summary().memory_steps_size() > 0) {
    if (event.attempt() != memory_attempt_) AddMemorySteps(memory_steps_, &earlier_memory_steps_);
    memory_attempt_ = event.attempt();
    memory_steps_ = event.summary().memory_steps();
  }
  // The first summary counts: after a replay the worker's figures are those of the repeated work.
  if (has_summary_ || (event.token_ids_size() == 0 && !event.has_finish())) return;
  has_summary_ = true;
  summary_ = event.summary();
}

void SubmissionOutput::NoteTokens(int count, Clock::time_point now) {
  if (count <= 0) return;
  metrics_->AddGenerationTokens(count);
  if (!first_token_at_.has_value()) {
    first_token_at_ = now;
    metrics_->ObserveTimeToFirstToken(now - arrived_);
    --count;  // the gap of the first token is the time to first token
    last_token_at_ = now;
  }
  for (int i = 0; i < count; ++i) metrics_->ObserveInterTokenLatency((now - last_token_at_) / count);
  last_token_at_ = now;
}

telemetry::RequestTimes SubmissionOutput::Times(Clock::time_point dispatched) const {
  const Clock::time_point now = Clock::now();
  telemetry::RequestTimes times;
  times.queue = dispatched - arrived_ + nanoseconds(summary_.queue_ns());
  times.prefill = nanoseconds(summary_.prefill_ns());
  times.total = now - arrived_;
  times.prompt_tokens = prompt_tokens_;
  times.completion_tokens = builder_.completion_tokens();
  times.has_first_token = first_token_at_.has_value();
  if (first_token_at_.has_value()) {
    times.decode = last_token_at_ - *first_token_at_;
    times.time_to_first_token = *first_token_at_ - arrived_;
  }
  return times;
}

void SubmissionOutput::FillMemorySteps(v1::Final* final) const {
  MemorySteps memory_steps = earlier_memory_steps_;
  AddMemorySteps(memory_steps_, &memory_steps);
  std::stable_sort(memory_steps.begin(), memory_steps.end(),
                   [](const internal::v1::MemoryStep& a, const internal::v1::MemoryStep& b) {
                     return a.step() < b.step();
                   });
  for (const internal::v1::MemoryStep& step : memory_steps) {
    v1::MemoryStep* out = final->add_memory_steps();
    out->set_step(static_cast<v1::MemoryStep::Step>(step.step()));
    out->set_method(step.method());
    out->set_device(step.device());
    SetDuration(nanoseconds(step.time_ns()), out->mutable_time());
    out->set_bytes_moved(step.bytes_moved());
    out->set_round_trips(step.round_trips());
    out->set_count(step.count());
  }
}

}  // namespace mnemo::frontend
