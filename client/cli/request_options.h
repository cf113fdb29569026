// Options that `generate` and `chat` share: model, sampling, output, deadline.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/client.h"

namespace CLI {
class App;
}

namespace mnemo::cli {

struct RequestOptions {
  std::string model;
  std::string session;
  std::string request_id;
  std::string deadline;
  int priority = 0;
  int overload_retries = 0;
  std::optional<int> max_tokens;
  std::optional<float> temperature;
  std::optional<int> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int> stop_token_ids;
  bool ignore_eos = false;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
  bool include_special = false;
  std::string attention;  // method's name in lower case
  std::optional<int> token_budget;
  std::optional<int> keep_first;
  std::optional<int> keep_last;
  std::optional<int> reuse_interval;
  std::optional<int> first_stage_tokens;
  std::optional<int> key_bits;
  std::string placement;  // inline | memory-service
};

void AddRequestOptions(CLI::App* command, RequestOptions* options);

// Fills everything but the input. INVALID_ARGUMENT names the option.
absl::Status ApplyRequestOptions(const RequestOptions& options, v1::GenerateRequest* request,
                                 client::CallOptions* call);

}  // namespace mnemo::cli
