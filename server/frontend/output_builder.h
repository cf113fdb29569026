// Output: from a worker's events to the messages of one stream. Text, stop matches, merging, and the one
// place that decides how a generation finishes.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.pb.h"
#include "server/frontend/served_model.h"
#include "server/frontend/validate.h"
#include "server/model/text_stream.h"

namespace mnemo::frontend {

// Messages that wait for the write before them. Deltas merge up to kMaxMessageBytes: every gRPC client takes
// 4 MiB by default. Not thread-safe.
class ResponseQueue {
 public:
  static constexpr size_t kMaxMessageBytes = (1 << 20) - 4096;

  bool empty() const { return messages_.empty(); }
  // Tokens in waiting Deltas and PromptTokens.
  int waiting_tokens() const { return waiting_tokens_; }
  void Push(v1::GenerateResponse message);
  void AddToken(v1::Token token);
  void AddText(const std::string& text);
  void AddPromptToken(int32_t position, v1::Token token);
  // The queue is not empty.
  void Pop(v1::GenerateResponse* message);
  void Clear();

 private:
  v1::Delta* DeltaWithRoom(size_t bytes);

  std::deque<v1::GenerateResponse> messages_;
  // About the size of messages_.back().
  size_t last_bytes_ = 0;
  int waiting_tokens_ = 0;
};

// One generation. Not thread-safe.
class OutputBuilder {
 public:
  // `model` outlives the object. `end_ids` and `max_tokens` as in the Submit of the request.
  OutputBuilder(const ServedModel& model, const TextSettings& text, const internal::v1::Submit& submit);

  // Appends the event's tokens and text. Tokens behind the finish are left out. INTERNAL when an output index
  // is repeated or skipped, which is a bug of mnemo.
  absl::Status Add(const internal::v1::Event& event, ResponseQueue* queue);

  // The finish reason; UNSPECIFIED before the finish.
  v1::FinishReason reason() const { return reason_; }
  bool is_finished() const { return reason_ != v1::FINISH_REASON_UNSPECIFIED; }
  const std::string& stop_matched() const { return stop_matched_; }
  int completion_tokens() const { return completion_tokens_; }

 private:
  void AddPrompt(const internal::v1::Event& event, ResponseQueue* queue);
  void AddToken(const internal::v1::Event& event, int index, ResponseQueue* queue);
  void Finish(v1::FinishReason reason, ResponseQueue* queue);
  v1::Token MakeToken(int32_t id, const internal::v1::TokenDetail* detail) const;
  bool IsEndId(int32_t id) const;
  bool IsStopId(int32_t id) const;

  const ServedModel& model_;
  model::TextStream text_;
  // Ascending.
  std::vector<int32_t> stop_ids_;
  const bool ignore_eos_;
  int next_prompt_position_;
  int completion_tokens_ = 0;
  v1::FinishReason reason_ = v1::FINISH_REASON_UNSPECIFIED;
  std::string stop_matched_;
};

}  // namespace mnemo::frontend
