#include "client/cli/request_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>

#include "client/cli/common.h"

namespace mnemo::cli {

void AddRequestOptions(CLI::App* command, RequestOptions* options) {
  const char* const kSampling = "Sampling";
  const char* const kRequest = "Request";
  command->add_option("-m,--model", options->model, "Model name (see `mnemo models`); default: the daemon's")
      ->group(kRequest);
  command
      ->add_option("--session", options->session,
                   "Session id, [A-Za-z0-9._-]{1,64}: keeps the prefix's pages for the next request")
      ->group(kRequest);
  command
      ->add_option("--request-id", options->request_id,
                   "Name of the request in logs, at most 128 printable ASCII characters")
      ->group(kRequest);
  command
      ->add_option("--deadline", options->deadline,
                   "Longest time for the whole request (500ms, 30s, 2m); default: none")
      ->type_name("DURATION")
      ->group(kRequest);
  command->add_option("--priority", options->priority, "Lower runs first; default 0")->group(kRequest);
  command
      ->add_option("--retry-overload", options->overload_retries,
                   "Try so many times more when the daemon is overloaded, each time after the pause it asks "
                   "for; default 0")
      ->check(CLI::Range(0, 1000))
      ->group(kRequest);
  command
      ->add_option("-n,--max-tokens", options->max_tokens,
                   "Tokens to generate at most; 0 = only score the prompt")
      ->group(kSampling);
  command->add_option("-t,--temperature", options->temperature, "[0, 5]; 0 = greedy; default 1")
      ->group(kSampling);
  command->add_option("--top-k", options->top_k, "Sample among the k likeliest; 0 = off")->group(kSampling);
  command->add_option("--top-p", options->top_p, "(0, 1]; default 1 = off")->group(kSampling);
  command->add_option("--min-p", options->min_p, "[0, 1]; default 0 = off")->group(kSampling);
  command->add_option("--repetition-penalty", options->repetition_penalty, "(0, 10]; 1 = off")
      ->group(kSampling);
  command->add_option("--presence-penalty", options->presence_penalty, "[-2, 2]; 0 = off")->group(kSampling);
  command->add_option("--frequency-penalty", options->frequency_penalty, "[-2, 2]; 0 = off")
      ->group(kSampling);
  command
      ->add_option("--seed", options->seed,
                   "Same seed and request, same tokens; default: drawn by the daemon")
      ->check(CheckSeed)
      ->group(kSampling);
  command
      ->add_option("--stop", options->stop,
                   "Text that ends the answer and is cut from it; may be repeated, 16 at most")
      ->allow_extra_args(false)
      ->group(kSampling);
  command
      ->add_option("--stop-token-id", options->stop_token_ids, "Token that ends the answer; may be repeated")
      ->allow_extra_args(false)
      ->group(kSampling);
  command->add_flag("--ignore-eos", options->ignore_eos, "Do not end at the model's end tokens")
      ->group(kSampling);
  command->add_option("--logit-bias", options->logit_bias, "ID=VALUE, value in [-100, 100]; may be repeated")
      ->allow_extra_args(false)
      ->type_name("ID=VALUE")
      ->group(kSampling);
  const char* const kAttention = "Attention";
  command
      ->add_option("--attention", options->attention,
                   "dense, page_bound, block_mean, token_topk or cascade; with another of these options and "
                   "without this one, the daemon's sparse method")
      ->check(CLI::IsMember(
          {"dense", "page_bound", "block_gate", "block_mean", "token_indexer", "token_topk", "cascade"}))
      ->type_name("METHOD")
      ->group(kAttention);
  command->add_option("--budget", options->token_budget, "Tokens attended to in a step")->group(kAttention);
  command->add_option("--keep-first", options->keep_first, "Oldest tokens always attended to")
      ->group(kAttention);
  command->add_option("--keep-last", options->keep_last, "Newest tokens always attended to")
      ->group(kAttention);
  command->add_option("--reuse-interval", options->reuse_interval, "Decode steps that share a selection")
      ->group(kAttention);
  command
      ->add_option("--first-stage-tokens", options->first_stage_tokens,
                   "With cascade: tokens that pass its first stage")
      ->group(kAttention);
  command->add_option("--key-bits", options->key_bits, "2, 4 or 8 bits of an indexed key's element")
      ->group(kAttention);
  command
      ->add_option("--placement", options->placement,
                   "Where relevancy and retrieval run; default: as the daemon chooses")
      ->check(CLI::IsMember({"inline", "memory-service"}))
      ->type_name("inline|memory-service")
      ->group(kAttention);
  command->add_flag("--include-special-tokens", options->include_special, "Show control tokens as text")
      ->group(kSampling);
}

namespace {

absl::Status ApplyBias(const std::string& entry, v1::Sampling* sampling) {
  int id = 0;
  float value = 0;
  const char* const last = entry.data() + entry.size();
  const auto [equals, id_error] = std::from_chars(entry.data(), last, id);
  bool valid = id_error == std::errc() && equals != last && *equals == '=';
  if (valid) {
    const auto [end, value_error] = std::from_chars(equals + 1, last, value);
    valid = value_error == std::errc() && end == last;
  }
  if (!valid) return InvalidArgument("--logit-bias: '{}' is not ID=VALUE, as in 42=-5.5", entry);
  (*sampling->mutable_logit_bias())[id] = value;
  return absl::OkStatus();
}

// The message stays absent unless an option asks for it.
absl::Status ApplyAttention(const RequestOptions& options, v1::GenerateRequest* request) {
  if (!options.attention.empty()) {
    std::string name = "ATTENTION_METHOD_" + options.attention;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
    v1::AttentionMethod method;
    if (!v1::AttentionMethod_Parse(name, &method)) {
      return InvalidArgument("--attention: '{}' is no known method", options.attention);
    }
    request->mutable_attention()->set_method(method);
  }
  const auto set = [request](const std::optional<int>& value, void (v1::Attention::*setter)(int)) {
    if (value) (request->mutable_attention()->*setter)(*value);
  };
  set(options.token_budget, &v1::Attention::set_token_budget);
  set(options.keep_first, &v1::Attention::set_keep_first);
  set(options.keep_last, &v1::Attention::set_keep_last);
  set(options.reuse_interval, &v1::Attention::set_reuse_interval);
  set(options.first_stage_tokens, &v1::Attention::set_first_stage_tokens);
  set(options.key_bits, &v1::Attention::set_key_bits);
  if (!options.placement.empty()) {
    request->mutable_attention()->set_placement(options.placement == "inline" ? v1::PLACEMENT_WORKER
                                                                              : v1::PLACEMENT_MEMORY_SERVICE);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyRequestOptions(const RequestOptions& options, v1::GenerateRequest* request,
                                 client::CallOptions* call) {
  request->set_model(options.model);
  request->set_session_id(options.session);
  request->set_request_id(options.request_id);
  request->set_priority(options.priority);
  v1::Sampling* sampling = request->mutable_sampling();
  if (options.max_tokens) sampling->set_max_tokens(*options.max_tokens);
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.min_p) sampling->set_min_p(*options.min_p);
  if (options.repetition_penalty) sampling->set_repetition_penalty(*options.repetition_penalty);
  if (options.presence_penalty) sampling->set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling->set_frequency_penalty(*options.frequency_penalty);
  if (options.seed) sampling->set_seed(*options.seed);
  for (const std::string& stop : options.stop) sampling->add_stop(stop);
  for (const int id : options.stop_token_ids) sampling->add_stop_token_ids(id);
  sampling->set_ignore_eos(options.ignore_eos);
  for (const std::string& entry : options.logit_bias) MNEMO_RETURN_IF_ERROR(ApplyBias(entry, sampling));
  MNEMO_RETURN_IF_ERROR(ApplyAttention(options, request));
  if (options.include_special) request->mutable_output()->set_include_special_tokens(true);
  if (!options.deadline.empty()) {
    const absl::StatusOr<std::chrono::nanoseconds> deadline = ParseDuration(options.deadline);
    if (!deadline.ok()) return Annotate(deadline.status(), "--deadline");
    call->timeout = *deadline;
  }
  call->retry.on_overload = options.overload_retries > 0;
  call->retry.max_attempts = std::max(call->retry.max_attempts, options.overload_retries + 1);
  return absl::OkStatus();
}

}  // namespace mnemo::cli
