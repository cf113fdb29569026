#include "server/worker/service/convert.h"

#include <algorithm>

namespace mnemo::worker {

EngineRequest ToEngineRequest(const internal::v1::Submit& submit, std::chrono::steady_clock::time_point now) {
  EngineRequest request;
  request.attempt = submit.attempt();
  request.request_id = submit.request_id();
  request.prompt.assign(submit.prompt().begin(), submit.prompt().end());
  request.generated.assign(submit.generated().begin(), submit.generated().end());
  request.max_tokens = submit.max_tokens();
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
  return request;
}

}  // namespace mnemo::worker
