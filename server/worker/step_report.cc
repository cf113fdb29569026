#include "server/worker/step_report.h"

#include <utility>

namespace mnemo::worker {

EngineEvent& StepReport::EventOf(Request* request) {
  RequestReport& report = request->report;
  if (report.event_turn != turn_) {
    report.event_turn = turn_;
    report.event_index = static_cast<int>(events_.size());
    EngineEvent& event = events_.emplace_back();
    event.id = request->spec.id;
    event.attempt = request->spec.attempt;
  }
  return events_[static_cast<size_t>(report.event_index)];
}

EngineEvent* StepReport::EventWithTokens(const Request& request) {
  if (request.report.event_turn != turn_) return nullptr;
  EngineEvent& event = events_[static_cast<size_t>(request.report.event_index)];
  return event.tokens.empty() ? nullptr : &event;
}

bool StepReport::NoteOutput(Request* request, Clock::time_point now) {
  if (std::exchange(request->report.begun, true)) return false;
  request->report.first_token = now;
  return true;
}

void StepReport::FillSummary(const Request& request, Clock::time_point now, EngineEvent* event) {
  const RequestAdmission& admission = request.admission;
  const RequestReport& report = request.report;
  event->cached_prompt_tokens = admission.cached_tokens;
  event->preemptions = admission.preemptions;
  event->max_tokens = request.spec.max_tokens;
  event->queue_time = (admission.was_admitted ? admission.first_admitted : now) - request.submitted;
  if (!admission.was_admitted) return;
  event->prefill_time = (report.begun ? report.first_token : now) - admission.first_admitted;
  if (report.begun) event->decode_time = now - report.first_token;
}

void StepReport::Deliver(EngineSink* sink) {
  if (events_.empty()) return;
  sink->OnStep(std::move(events_));
  events_ = {};
}

}  // namespace mnemo::worker
