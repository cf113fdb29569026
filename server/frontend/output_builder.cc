#include "server/frontend/output_builder.h"

#include <algorithm>
#include <utility>

namespace mnemo::frontend {
namespace {

// Upper bound of the encoded size: tags, id, logprob, rank and lengths take at most 32 bytes.
size_t TokenBytes(const v1::Token& token) {
  size_t bytes = 32 + token.piece().size();
  for (const v1::Token::Alternative& alternative : token.alternatives()) {
    bytes += 32 + alternative.piece().size();
  }
  return bytes;
}

}  // namespace

void ResponseQueue::Push(v1::GenerateResponse message) {
  messages_.push_back(std::move(message));
  last_bytes_ = 0;
}

v1::Delta* ResponseQueue::DeltaWithRoom(size_t bytes) {
  if (messages_.empty() || !messages_.back().has_delta() || last_bytes_ + bytes > kMaxMessageBytes) {
    messages_.emplace_back();
    last_bytes_ = 0;
  }
  last_bytes_ += bytes;
  return messages_.back().mutable_delta();
}

void ResponseQueue::AddToken(v1::Token token) {
  *DeltaWithRoom(TokenBytes(token))->add_tokens() = std::move(token);
  ++waiting_tokens_;
}

void ResponseQueue::AddText(const std::string& text) {
  if (!text.empty()) DeltaWithRoom(text.size())->mutable_text()->append(text);
}

void ResponseQueue::AddPromptToken(int32_t position, v1::Token token) {
  const size_t bytes = TokenBytes(token);
  if (messages_.empty() || !messages_.back().has_prompt() || last_bytes_ + bytes > kMaxMessageBytes) {
    messages_.emplace_back();
    messages_.back().mutable_prompt()->set_start(position);
    last_bytes_ = 0;
  }
  last_bytes_ += bytes;
  *messages_.back().mutable_prompt()->add_tokens() = std::move(token);
  ++waiting_tokens_;
}

void ResponseQueue::Pop(v1::GenerateResponse* message) {
  *message = std::move(messages_.front());
  messages_.pop_front();
  waiting_tokens_ -= message->delta().tokens_size() + message->prompt().tokens_size();
}

void ResponseQueue::Clear() {
  messages_.clear();
  waiting_tokens_ = 0;
}

OutputBuilder::OutputBuilder(const ServedModel& model, const TextSettings& text,
                             const internal::v1::Submit& submit)
    : model_(model),
      text_(*model.tokenizer, text.include_special_tokens, text.stop,
            std::span(submit.prompt().data(), static_cast<size_t>(submit.prompt_size()))),
      stop_ids_(text.stop_token_ids),
      ignore_eos_(text.ignore_eos),
      next_prompt_position_(submit.prompt_logprobs_from()) {}

absl::Status OutputBuilder::Add(const internal::v1::Event& event, ResponseQueue* queue) {
  if (is_finished()) return absl::OkStatus();
  AddPrompt(event, queue);
  if (event.token_ids_size() > 0 && event.first_index() != completion_tokens_) {
    return Internal("output index {} came where {} was due", event.first_index(), completion_tokens_);
  }
  for (int i = 0; i < event.token_ids_size() && !is_finished(); ++i) AddToken(event, i, queue);
  if (is_finished() || !event.has_finish()) return absl::OkStatus();
  if (event.finish().reason() == internal::v1::Finish::REASON_LENGTH) {
    Finish(v1::FINISH_REASON_LENGTH, queue);
  } else if (event.finish().reason() == internal::v1::Finish::REASON_END_TOKEN) {
    return Internal("a worker ended at a token that is no end token");
  }
  // An error comes as the status of the request.
  return absl::OkStatus();
}

// A replay scores the prompt again; positions that were sent are left out.
void OutputBuilder::AddPrompt(const internal::v1::Event& event, ResponseQueue* queue) {
  for (int i = 0; i < event.prompt_ids_size(); ++i) {
    const int position = event.prompt_first() + i;
    if (position < next_prompt_position_) continue;
    const auto* detail = i < event.prompt_details_size() ? &event.prompt_details(i) : nullptr;
    queue->AddPromptToken(position, MakeToken(event.prompt_ids(i), detail));
    next_prompt_position_ = position + 1;
  }
}

void OutputBuilder::AddToken(const internal::v1::Event& event, int index, ResponseQueue* queue) {
  const int32_t id = event.token_ids(index);
  queue->AddToken(MakeToken(id, index < event.details_size() ? &event.details(index) : nullptr));
  ++completion_tokens_;
  if (id >= 0 && id < model_.tokenizer->size()) {
    const model::TextStream::Result result = text_.Append(id);
    queue->AddText(result.text);
    if (result.stopped) {
      stop_matched_ = result.stop_matched;
      reason_ = v1::FINISH_REASON_STOP;
      return;
    }
  }
  // An end token that is also named as a stop token is an end token, unless those are to be ignored.
  if (IsEndId(id)) {
    Finish(v1::FINISH_REASON_EOS, queue);
  } else if (IsStopId(id)) {
    Finish(v1::FINISH_REASON_STOP, queue);
  }
}

void OutputBuilder::Finish(v1::FinishReason reason, ResponseQueue* queue) {
  const model::TextStream::Result rest = text_.Finish();
  queue->AddText(rest.text);
  reason_ = rest.stopped ? v1::FINISH_REASON_STOP : reason;
  stop_matched_ = rest.stop_matched;
}

v1::Token OutputBuilder::MakeToken(int32_t id, const internal::v1::TokenDetail* detail) const {
  v1::Token token;
  token.set_id(id);
  const std::string_view piece = model_.Piece(id);
  token.set_piece(piece.data(), piece.size());
  if (detail == nullptr || !detail->has_logprob()) return token;
  token.set_logprob(detail->logprob());
  token.set_rank(detail->rank());
  const int count = std::min(detail->alternative_ids_size(), detail->alternative_logprobs_size());
  for (int i = 0; i < count; ++i) {
    v1::Token::Alternative* alternative = token.add_alternatives();
    alternative->set_id(detail->alternative_ids(i));
    const std::string_view text = model_.Piece(alternative->id());
    alternative->set_piece(text.data(), text.size());
    alternative->set_logprob(detail->alternative_logprobs(i));
  }
  return token;
}

bool OutputBuilder::IsEndId(int32_t id) const {
  return !ignore_eos_ && std::find(model_.end_ids.begin(), model_.end_ids.end(), id) != model_.end_ids.end();
}

bool OutputBuilder::IsStopId(int32_t id) const {
  return std::binary_search(stop_ids_.begin(), stop_ids_.end(), id);
}

}  // namespace mnemo::frontend
