#include "server/worker/service/event_outbox.h"

#include "server/worker/service/convert.h"

namespace mnemo::worker_service {
namespace {

using internal::v1::Event;
using internal::v1::TokenDetail;

constexpr size_t kEventBytes = 256;  // of an event or a detail without its lists, roughly
constexpr size_t kTokenBytes = 4;
constexpr size_t kSpanBytes = 84;
constexpr size_t kAlternativeBytes = 8;

size_t FillDetail(const worker::EngineToken& token, TokenDetail* out) {
  out->set_has_logprob(token.has_logprob);
  if (!token.has_logprob) return kEventBytes;
  out->set_logprob(token.detail.logprob);
  out->set_rank(token.detail.rank);
  for (int i = 0; i < token.detail.alternative_count; ++i) {
    out->add_alternative_ids(token.detail.alternative_ids[i]);
    out->add_alternative_logprobs(token.detail.alternative_logprobs[i]);
  }
  return kEventBytes + static_cast<size_t>(token.detail.alternative_count) * kAlternativeBytes;
}

void FillFinish(const worker::EngineEvent& event, internal::v1::Finish* finish) {
  switch (event.finish) {
    case worker::EngineFinish::kNone:
      break;
    case worker::EngineFinish::kEndToken:
      finish->set_reason(internal::v1::Finish::REASON_END_TOKEN);
      break;
    case worker::EngineFinish::kLength:
      finish->set_reason(internal::v1::Finish::REASON_LENGTH);
      break;
    case worker::EngineFinish::kError:
      finish->set_reason(internal::v1::Finish::REASON_ERROR);
      finish->set_status_code(static_cast<int32_t>(event.status.code()));
      finish->set_status_message(std::string(event.status.message()));
      finish->set_refused(event.refused);
      break;
  }
}

void FillSummary(const worker::EngineEvent& event, internal::v1::Summary* summary) {
  summary->set_cached_prompt_tokens(event.cached_prompt_tokens);
  summary->set_queue_ns(event.queue_time.count());
  summary->set_prefill_ns(event.prefill_time.count());
  summary->set_decode_ns(event.decode_time.count());
  summary->set_preemptions(event.preemptions);
  summary->set_max_tokens(event.max_tokens);
  summary->clear_memory_steps();
  for (const memory::MemoryStepStat& stat : event.memory_steps) {
    FillMemoryStep(stat, summary->add_memory_steps());
  }
  summary->set_memory_fallbacks(event.memory_fallbacks);
  summary->set_memory_fallback_reason(event.memory_fallback_reason);
}

}  // namespace

Event* EventOutbox::FindOrAdd(uint64_t id, uint32_t attempt) {
  const auto [it, added] = index_.try_emplace(id, pending_.events_size());
  if (!added) {
    Event* event = pending_.mutable_events(it->second);
    if (event->attempt() == attempt) return event;
    it->second = pending_.events_size();
  }
  bytes_ += kEventBytes;
  Event* event = pending_.add_events();
  event->set_id(id);
  event->set_attempt(attempt);
  return event;
}

void EventOutbox::AddSpans(const worker::EngineEvent& event, uint64_t id, uint32_t attempt) {
  for (const worker::EngineSpan& span : event.spans) {
    bytes_ += kSpanBytes;
    internal::v1::Span* out = pending_.add_spans();
    out->set_id(id);
    out->set_attempt(attempt);
    out->set_step(static_cast<int32_t>(span.step));
    out->set_device(span.device);
    out->set_begin_ns(span.begin_ns);
    out->set_length_ns(span.end_ns - span.begin_ns);
    out->set_work_ns(span.work_ns);
    out->set_bytes(span.bytes);
    out->set_operations(span.operations);
  }
}

void EventOutbox::Add(const worker::EngineEvent& event, uint64_t id, uint32_t attempt) {
  AddSpans(event, id, attempt);
  const bool tells_spans_alone = !event.spans.empty() && event.tokens.empty() &&
                                 event.prompt_tokens.empty() && event.memory_steps.empty() &&
                                 event.finish == worker::EngineFinish::kNone;
  if (tells_spans_alone) return;
  Event* out = FindOrAdd(id, attempt);
  bool first_token = false;
  for (const worker::EngineToken& token : event.prompt_tokens) {
    if (out->prompt_ids_size() == 0) out->set_prompt_first(token.index);
    MNEMO_CHECK(token.index == out->prompt_first() + out->prompt_ids_size());
    out->add_prompt_ids(token.id);
    bytes_ += kTokenBytes + FillDetail(token, out->add_prompt_details());
  }
  for (const worker::EngineToken& token : event.tokens) {
    if (out->token_ids_size() == 0) {
      out->set_first_index(token.index);
      first_token = token.index == 0;
    }
    MNEMO_CHECK(token.index == out->first_index() + out->token_ids_size());
    out->add_token_ids(token.id);
    bytes_ += kTokenBytes;
    if (token.has_logprob) bytes_ += FillDetail(token, out->add_details());
  }
  if (event.finish != worker::EngineFinish::kNone) FillFinish(event, out->mutable_finish());
  if (event.finish != worker::EngineFinish::kNone || first_token || !event.memory_steps.empty()) {
    FillSummary(event, out->mutable_summary());
  }
}

void EventOutbox::TakeInto(internal::v1::Events* out) {
  out->Clear();
  out->Swap(&pending_);
  index_.clear();
  bytes_ = 0;
}

}  // namespace mnemo::worker_service
