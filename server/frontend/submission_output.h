// The output of one submission: messages that wait for the reader, and the figures of its Final.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.pb.h"
#include "server/frontend/output_builder.h"
#include "server/frontend/served_model.h"
#include "server/frontend/validate.h"
#include "server/telemetry/energy/energy_monitor.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

// Not thread-safe; the request core's lock guards it.
class SubmissionOutput {
 public:
  using Clock = std::chrono::steady_clock;

  // Its first message is Started. The pointees outlive the object. `arrived`: when the request came.
  // `energy`: nullptr without meters.
  SubmissionOutput(const ServedModel& model, const Submission& submission, Clock::time_point arrived,
                   telemetry::Metrics* metrics, const attribution::EnergyMonitor* energy);

  // Takes over an event of a worker. Behind the finish only figures count. INTERNAL as for
  // OutputBuilder::Add.
  absl::Status Add(const internal::v1::Event& event);
  // Appends the Final of a finished output and returns its figures. `dispatched`: when admission let the
  // request run.
  telemetry::RequestTimes PushFinal(Clock::time_point dispatched, int replays);

  bool is_finished() const { return builder_.is_finished(); }
  v1::FinishReason reason() const { return builder_.reason(); }
  int prompt_tokens() const { return prompt_tokens_; }
  int cached_prompt_tokens() const { return summary_.cached_prompt_tokens(); }
  int completion_tokens() const { return builder_.completion_tokens(); }
  ResponseQueue& queue() { return queue_; }
  const ResponseQueue& queue() const { return queue_; }

 private:
  using MemorySteps = google::protobuf::RepeatedPtrField<internal::v1::MemoryStep>;

  void NoteSummary(const internal::v1::Event& event);
  void NoteTokens(int count, Clock::time_point now);
  telemetry::RequestTimes Times(Clock::time_point dispatched) const;
  void FillMemorySteps(v1::Final* final) const;

  telemetry::Metrics* const metrics_;
  const attribution::EnergyMonitor* const energy_;
  const Clock::time_point arrived_;
  const int prompt_tokens_;
  OutputBuilder builder_;
  ResponseQueue queue_;
  std::optional<Clock::time_point> first_token_at_;
  Clock::time_point last_token_at_;
  // The dispatcher's number of the request, once an event has come.
  std::optional<uint64_t> dispatch_id_;
  bool has_summary_ = false;
  internal::v1::Summary summary_;
  uint32_t memory_attempt_ = 0;
  // Memory steps of that attempt, and of the attempts before it.
  MemorySteps memory_steps_;
  MemorySteps earlier_memory_steps_;
};

}  // namespace mnemo::frontend
