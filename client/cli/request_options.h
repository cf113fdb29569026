// The options of a request, in one table for every command that makes requests. A command declares its
// differences: an option of its own instead, another text, or the reason to refuse one.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/client.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mnemo::cli {

// Names that --attention takes: dense and every attention method of the protocol.
std::vector<std::string> MethodNames();

struct RequestOptions {
  // Input.
  std::optional<std::string> prompt;
  std::string file;
  std::optional<std::string> token_ids;
  bool chat = false;
  std::string system;
  std::string messages;                    // a JSON file
  std::string tools;                       // a JSON file
  std::vector<std::string> template_args;  // "NAME=VALUE"
  bool omit_generation_prompt = false;
  bool continue_final_message = false;
  bool parse_special = false;
  bool add_special = false;
  bool no_add_special = false;
  // Request.
  std::string model;
  std::string session;
  std::string request_id;
  std::string deadline;
  int priority = 0;
  int overload_retries = 0;
  // Sampling.
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
  // Output.
  std::optional<int> logprobs;
  std::optional<int> prompt_logprobs;
  std::optional<int> prompt_logprobs_from;
  std::optional<int> decode_from;
  bool include_special = false;
  // Attention.
  std::string attention;  // method's name in lower case
  std::optional<int> token_budget;
  std::optional<float> threshold;
  std::optional<int> keep_first;
  std::optional<int> keep_last;
  std::optional<int> reuse_interval;
  std::optional<int> first_stage_tokens;
  std::optional<int> key_bits;
  std::string placement;  // inline | memory-service

  // Options that AddRequestOptions made, by name, with the reason of refused ones.
  struct Added {
    std::string name;
    CLI::Option* option = nullptr;
    std::string refusal;
  };
  std::vector<Added> added;
};

// The difference that one command makes.
struct Variation {
  enum class Kind {
    kOwn,     // the command has its own of this name
    kText,    // `text` stands in the help instead
    kRefuse,  // known, and refused with `text` as the reason
  };
  std::string_view option;  // "--top-k"
  Kind kind;
  std::string_view text;
};

void AddRequestOptions(CLI::App* command, RequestOptions* options, std::span<const Variation> variations);

// INVALID_ARGUMENT names an option that the command refuses, and the reason. Called before any other use of
// the given options.
absl::Status CheckRefused(const RequestOptions& options);

// Fills everything but the input. INVALID_ARGUMENT names the option.
absl::Status ApplyRequestOptions(const RequestOptions& options, v1::GenerateRequest* request,
                                 client::CallOptions* call);

// Whether the input is a chat: --chat, or one of the options that only chats have.
bool IsChat(const RequestOptions& options);
// The chat's settings, the system message and the messages of --messages, in this order. Reads files. Errors
// name option and file.
absl::StatusOr<v1::Chat> MakeChat(const RequestOptions& options);

// Arguments of the command line: the option's name without dashes, and its values.
std::vector<std::pair<std::string, std::vector<std::string>>> GivenOptions(const RequestOptions& options);

// The table's fields of GenerateRequest, "sampling.top_k", and the option of each.
std::vector<std::pair<std::string, std::string>> RequestFields();

}  // namespace mnemo::cli
