#include "server/worker/service/convert.h"

#include <algorithm>

namespace mnemo::worker_service {
namespace {

// A number that no method has stays what it is: the engine refuses it.
memory::AttentionSettings ToSettings(const internal::v1::Attention& attention) {
  using memory::AttentionSettings;
  AttentionSettings settings;
  if (attention.method() != 0) settings.method = static_cast<AttentionSettings::Method>(attention.method());
  if (settings.method == AttentionSettings::Method::kDense) return settings;
  settings.token_budget = attention.token_budget();
  settings.keep_first = attention.keep_first();
  settings.keep_last = attention.keep_last();
  settings.reuse_interval = attention.reuse_interval();
  settings.first_stage_tokens = attention.first_stage_tokens();
  settings.key_bits = attention.key_bits();
  settings.placement = static_cast<AttentionSettings::Placement>(attention.placement());
  return settings;
}

template <typename Histogram>
void FillHistogram(const Histogram& histogram, internal::v1::Histogram* out) {
  out->mutable_buckets()->Add(histogram.buckets.begin(), histogram.buckets.end());
  out->set_count(histogram.count);
  out->set_sum(histogram.sum);
}

}  // namespace

worker::EngineRequest ToEngineRequest(const internal::v1::Submit& submit,
                                      std::chrono::steady_clock::time_point now) {
  worker::EngineRequest request;
  request.attempt = submit.attempt();
  request.request_id = submit.request_id();
  request.prompt.assign(submit.prompt().begin(), submit.prompt().end());
  request.generated.assign(submit.generated().begin(), submit.generated().end());
  request.max_tokens = submit.max_tokens();
  request.lower_to_pool = submit.lower_to_pool();
  request.end_ids.assign(submit.end_ids().begin(), submit.end_ids().end());
  const internal::v1::SamplingParams& sampling = submit.sampling();
  request.sampling = {.temperature = sampling.temperature(),
                      .top_k = sampling.top_k(),
                      .top_p = sampling.top_p(),
                      .min_p = sampling.min_p(),
                      .repetition_penalty = sampling.repetition_penalty(),
                      .presence_penalty = sampling.presence_penalty(),
                      .frequency_penalty = sampling.frequency_penalty(),
                      .seed = sampling.seed()};
  const int biases = std::min(submit.bias_ids_size(), submit.bias_values_size());
  for (int i = 0; i < biases; ++i) request.bias.push_back({submit.bias_ids(i), submit.bias_values(i)});
  request.logprobs = submit.logprobs();
  request.prompt_logprobs = submit.prompt_logprobs();
  request.prompt_logprobs_from = submit.prompt_logprobs_from();
  request.decode_from = submit.decode_from();
  request.priority = submit.priority();
  if (submit.time_left_us() > 0) {
    request.deadline = now + std::chrono::microseconds(submit.time_left_us());
  }
  request.session_id = submit.session_id();
  if (submit.has_attention()) request.attention = ToSettings(submit.attention());
  request.begun = submit.begun();
  return request;
}

void FillMemoryStep(const memory::MemoryStepStat& stat, internal::v1::MemoryStep* out) {
  out->set_step(static_cast<int32_t>(stat.step));
  out->set_method(stat.method);
  out->set_device(stat.device);
  out->set_time_ns(stat.time_ns);
  out->set_bytes_moved(stat.bytes);
  out->set_round_trips(stat.round_trips);
  out->set_count(stat.count);
}

void FillMemoryFigures(const memory::PipelineStats& stats, internal::v1::MemoryFigures* out) {
  out->set_service_attached(stats.service_attached);
  out->set_service(stats.service);
  out->set_inline_indexes(stats.inline_indexes);
  out->set_inline_bytes(stats.inline_bytes);
  out->set_service_indexes(stats.service_indexes);
  FillHistogram(stats.round_trips, out->mutable_round_trips());
  out->set_bytes_to_service(stats.bytes_to_service);
  out->set_bytes_from_service(stats.bytes_from_service);
  FillHistogram(stats.selected_tokens, out->mutable_selected_tokens());
  out->set_hot_selected_tokens(stats.hot.selected_tokens);
  out->set_hot_missed_tokens(stats.hot.missed_tokens);
  for (const auto& [reason, count] : stats.fallbacks) (*out->mutable_fallbacks())[reason] = count;
  for (const memory::StepTotal& step : stats.steps) {
    internal::v1::MemoryStepTotal* total = out->add_steps();
    FillMemoryStep(step, total->mutable_total());
    FillHistogram(step.times, total->mutable_times());
  }
}

}  // namespace mnemo::worker_service
