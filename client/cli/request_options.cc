#include "client/cli/request_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

#include "client/bench/messages.h"
#include "client/cli/common.h"
#include "server/memory/methods/method.h"

namespace mnemo::cli {
namespace {

constexpr const char* kInput = "Input";
constexpr const char* kChat = "Chat";
constexpr const char* kRequest = "Request";
constexpr const char* kSampling = "Sampling";
constexpr const char* kOutput = "Output";
constexpr const char* kAttention = "Attention";

// Functions that each add an option, which writes into a member of RequestOptions.
using Options = RequestOptions;

template <auto Member>
CLI::Option* Value(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->*Member);
}
template <auto Member>
CLI::Option* List(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->*Member)->allow_extra_args(false);
}
template <auto Member>
CLI::Option* Flag(CLI::App* command, const char* names, Options* options) {
  return command->add_flag(names, options->*Member);
}
CLI::Option* Seed(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->seed)->check(CheckSeed);
}
CLI::Option* Retries(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->overload_retries)->check(CLI::Range(0, 1000));
}
CLI::Option* Method(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->attention)
      ->description(memory::methods::Joined(memory::methods::RunnableNames(), "or") +
                    "; with another of these options and without this one, the daemon's sparse method")
      ->check(CLI::IsMember(MethodNames()));
}
CLI::Option* Place(CLI::App* command, const char* names, Options* options) {
  return command->add_option(names, options->placement)->check(CLI::IsMember({"inline", "memory-service"}));
}

struct Entry {
  const char* names;   // as for CLI11; the last one is the name
  const char* fields;  // of GenerateRequest that it sets, separated by commas; "" = none, the client's own
  const char* group;
  const char* type;  // in the help; nullptr = CLI11's
  const char* text;  // nullptr: what `add` sets
  CLI::Option* (*add)(CLI::App*, const char* names, Options*);
};

constexpr Entry kTable[] = {
    {"prompt", "prompt", kInput, "PROMPT", "The prompt; '-' or none: standard input, byte by byte",
     Value<&Options::prompt>},
    {"-f,--file", "", kInput, "FILE", "Read the prompt from a file, byte by byte", Value<&Options::file>},
    {"--token-ids", "token_ids.ids", kInput, "IDS",
     "Prompt as token ids, separated by blanks or commas; '-' = standard input", Value<&Options::token_ids>},
    {"--parse-special", "parse_special", kInput, nullptr,
     "Control-token text in the prompt becomes control tokens", Flag<&Options::parse_special>},
    {"--add-special", "add_special", kInput, nullptr,
     "Put begin-of-text and the like in front; default: as the model says", Flag<&Options::add_special>},
    {"--no-add-special", "add_special", kInput, nullptr, "Put nothing in front",
     Flag<&Options::no_add_special>},

    {"--chat", "", kChat, nullptr, "The prompt is a user's message: the model's chat template is applied",
     Flag<&Options::chat>},
    {"--system", "", kChat, "TEXT", "System message in front", Value<&Options::system>},
    {"--messages",
     "chat.messages.role,chat.messages.content,chat.messages.name,chat.messages.tool_call_id,"
     "chat.messages.tool_calls_json",
     kChat, "FILE",
     "Messages before the prompt: a JSON list of {role, content, name, tool_call_id, tool_calls}, or an "
     "object "
     "with it as `messages`",
     Value<&Options::messages>},
    {"--tools", "chat.tools_json", kChat, "FILE", "Tools for the chat template: a JSON list",
     Value<&Options::tools>},
    {"--template-arg", "chat.template_args", kChat, "NAME=VALUE",
     "Argument of the chat template, such as enable_thinking=false; may be repeated",
     List<&Options::template_args>},
    {"--omit-generation-prompt", "chat.omit_generation_prompt", kChat, nullptr,
     "Do not begin the model's turn", Flag<&Options::omit_generation_prompt>},
    {"--continue-final-message", "chat.continue_final_message", kChat, nullptr,
     "Leave the last message's turn open", Flag<&Options::continue_final_message>},

    {"-m,--model", "model", kRequest, nullptr, "Model name (see `mnemo models`); default: the daemon's",
     Value<&Options::model>},
    {"--session", "session_id", kRequest, nullptr,
     "Session id, [A-Za-z0-9._-]{1,64}: keeps the prefix's pages for the next request",
     Value<&Options::session>},
    {"--request-id", "request_id", kRequest, nullptr,
     "Name of the request in logs, at most 128 printable ASCII characters", Value<&Options::request_id>},
    {"--deadline", "", kRequest, "DURATION",
     "Longest time for the whole request (500ms, 30s, 2m); default: none", Value<&Options::deadline>},
    {"--priority", "priority", kRequest, nullptr, "Lower runs first; default 0", Value<&Options::priority>},
    {"--retry-overload", "", kRequest, nullptr,
     "Try so many times more when the daemon is overloaded, each time after the pause it asks for; default 0",
     Retries},

    {"-n,--max-tokens", "sampling.max_tokens", kSampling, nullptr,
     "Tokens to generate at most; 0 = only score the prompt", Value<&Options::max_tokens>},
    {"-t,--temperature", "sampling.temperature", kSampling, nullptr, "[0, 5]; 0 = greedy; default 1",
     Value<&Options::temperature>},
    {"--top-k", "sampling.top_k", kSampling, nullptr, "Sample among the k likeliest; 0 = off",
     Value<&Options::top_k>},
    {"--top-p", "sampling.top_p", kSampling, nullptr, "(0, 1]; default 1 = off", Value<&Options::top_p>},
    {"--min-p", "sampling.min_p", kSampling, nullptr, "[0, 1]; default 0 = off", Value<&Options::min_p>},
    {"--repetition-penalty", "sampling.repetition_penalty", kSampling, nullptr, "(0, 10]; 1 = off",
     Value<&Options::repetition_penalty>},
    {"--presence-penalty", "sampling.presence_penalty", kSampling, nullptr, "[-2, 2]; 0 = off",
     Value<&Options::presence_penalty>},
    {"--frequency-penalty", "sampling.frequency_penalty", kSampling, nullptr, "[-2, 2]; 0 = off",
     Value<&Options::frequency_penalty>},
    {"--seed", "sampling.seed", kSampling, nullptr,
     "Same seed and request, same tokens; default: drawn by the daemon", Seed},
    {"--stop", "sampling.stop", kSampling, nullptr,
     "Text that ends the answer and is cut from it; may be repeated, 16 at most", List<&Options::stop>},
    {"--stop-token-id", "sampling.stop_token_ids", kSampling, nullptr,
     "Token that ends the answer; may be repeated", List<&Options::stop_token_ids>},
    {"--ignore-eos", "sampling.ignore_eos", kSampling, nullptr, "Do not end at the model's end tokens",
     Flag<&Options::ignore_eos>},
    {"--logit-bias", "sampling.logit_bias", kSampling, "ID=VALUE",
     "ID=VALUE, value in [-100, 100]; may be repeated", List<&Options::logit_bias>},

    {"--logprobs", "output.logprobs", kOutput, nullptr, "Alternatives for each generated token, 0..20",
     Value<&Options::logprobs>},
    {"--prompt-logprobs", "output.prompt_logprobs", kOutput, nullptr,
     "Alternatives for each prompt token, 0..20", Value<&Options::prompt_logprobs>},
    {"--prompt-logprobs-from", "output.prompt_logprobs_from", kOutput, nullptr,
     "First prompt position wanted; default 0", Value<&Options::prompt_logprobs_from>},
    {"--decode-from", "output.decode_from", kOutput, nullptr,
     "Feed prompt tokens from this position on one decode step each", Value<&Options::decode_from>},
    {"--include-special-tokens", "output.include_special_tokens", kOutput, nullptr,
     "Show control tokens as text", Flag<&Options::include_special>},

    {"--attention", "attention.method", kAttention, "METHOD", nullptr, Method},
    {"--budget", "attention.token_budget", kAttention, nullptr, "Tokens attended to in a step",
     Value<&Options::token_budget>},
    {"--threshold", "attention.threshold", kAttention, nullptr, "(0, 1), with block_gate instead of --budget",
     Value<&Options::threshold>},
    {"--keep-first", "attention.keep_first", kAttention, nullptr, "Oldest tokens always attended to",
     Value<&Options::keep_first>},
    {"--keep-last", "attention.keep_last", kAttention, nullptr, "Newest tokens always attended to",
     Value<&Options::keep_last>},
    {"--reuse-interval", "attention.reuse_interval", kAttention, nullptr,
     "Decode steps that share a selection", Value<&Options::reuse_interval>},
    {"--first-stage-tokens", "attention.first_stage_tokens", kAttention, nullptr,
     "With cascade: tokens that pass its first stage", Value<&Options::first_stage_tokens>},
    {"--key-bits", "attention.key_bits", kAttention, nullptr, "2, 4 or 8 bits of an indexed key's element",
     Value<&Options::key_bits>},
    {"--placement", "attention.placement", kAttention, "inline|memory-service",
     "Where relevancy and retrieval run; default: as the daemon chooses", Place},
};

std::string NameOf(const Entry& entry) {
  const std::string names = entry.names;
  const size_t comma = names.rfind(',');
  return comma == std::string::npos ? names : names.substr(comma + 1);
}

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
    const auto method = memory::methods::MethodNamed(options.attention);
    if (!method) return InvalidArgument("--attention: '{}' is no known method", options.attention);
    request->mutable_attention()->set_method(static_cast<v1::AttentionMethod>(*method));
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
  if (options.threshold) request->mutable_attention()->set_threshold(*options.threshold);
  if (!options.placement.empty()) {
    request->mutable_attention()->set_placement(options.placement == "inline" ? v1::PLACEMENT_WORKER
                                                                              : v1::PLACEMENT_MEMORY_SERVICE);
  }
  return absl::OkStatus();
}

absl::Status ApplySampling(const RequestOptions& options, v1::Sampling* sampling) {
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
  return absl::OkStatus();
}

void ApplyOutput(const RequestOptions& options, v1::GenerateRequest* request) {
  if (options.logprobs) request->mutable_output()->set_logprobs(*options.logprobs);
  if (options.prompt_logprobs) request->mutable_output()->set_prompt_logprobs(*options.prompt_logprobs);
  if (options.prompt_logprobs_from) {
    request->mutable_output()->set_prompt_logprobs_from(*options.prompt_logprobs_from);
  }
  if (options.decode_from) request->mutable_output()->set_decode_from(*options.decode_from);
  if (options.include_special) request->mutable_output()->set_include_special_tokens(true);
}

}  // namespace

std::vector<std::string> MethodNames() {
  const std::vector<std::string_view> names = memory::methods::AllNames();
  return {names.begin(), names.end()};
}

void AddRequestOptions(CLI::App* command, RequestOptions* options, std::span<const Variation> variations) {
  using Kind = Variation::Kind;
  for (const Entry& entry : kTable) {
    const std::string name = NameOf(entry);
    const auto found = std::find_if(variations.begin(), variations.end(),
                                    [&](const Variation& each) { return each.option == name; });
    const bool varies = found != variations.end();
    const bool is_refused = varies && found->kind == Kind::kRefuse;
    if (varies && found->kind == Kind::kOwn) continue;
    if (is_refused && !name.starts_with("-")) continue;  // a refused argument without a name is not declared
    // A refused option has no short name: the command may use it for another option.
    CLI::Option* option = entry.add(command, is_refused ? name.c_str() : entry.names, options);
    if (varies && found->kind == Kind::kText) {
      option->description(std::string(found->text));
    } else if (entry.text != nullptr) {
      option->description(entry.text);
    }
    if (entry.type != nullptr) option->type_name(entry.type);
    option->group(is_refused ? "" : entry.group);
    options->added.push_back({name, option, is_refused ? std::string(found->text) : std::string()});
  }
}

absl::Status CheckRefused(const RequestOptions& options) {
  for (const RequestOptions::Added& each : options.added) {
    if (!each.refusal.empty() && each.option->count() > 0) {
      return InvalidArgument("{}: not with this command: {}", each.name, each.refusal);
    }
  }
  return absl::OkStatus();
}

absl::Status ApplyRequestOptions(const RequestOptions& options, v1::GenerateRequest* request,
                                 client::CallOptions* call) {
  MNEMO_RETURN_IF_ERROR(CheckRefused(options));
  request->set_model(options.model);
  request->set_session_id(options.session);
  request->set_request_id(options.request_id);
  request->set_priority(options.priority);
  MNEMO_RETURN_IF_ERROR(ApplySampling(options, request->mutable_sampling()));
  MNEMO_RETURN_IF_ERROR(ApplyAttention(options, request));
  ApplyOutput(options, request);
  request->set_parse_special(options.parse_special);
  if (options.add_special || options.no_add_special) request->set_add_special(options.add_special);
  if (!options.deadline.empty()) {
    const absl::StatusOr<std::chrono::nanoseconds> deadline = ParseDuration(options.deadline);
    if (!deadline.ok()) return Annotate(deadline.status(), "--deadline");
    call->timeout = *deadline;
  }
  call->retry.on_overload = options.overload_retries > 0;
  call->retry.max_attempts = std::max(call->retry.max_attempts, options.overload_retries + 1);
  return absl::OkStatus();
}

bool IsChat(const RequestOptions& options) {
  return options.chat || !options.system.empty() || !options.messages.empty() || !options.tools.empty() ||
         !options.template_args.empty() || options.omit_generation_prompt || options.continue_final_message;
}

absl::StatusOr<v1::Chat> MakeChat(const RequestOptions& options) {
  v1::Chat chat;
  chat.set_omit_generation_prompt(options.omit_generation_prompt);
  chat.set_continue_final_message(options.continue_final_message);
  if (!options.system.empty()) {
    v1::Chat::Message* system = chat.add_messages();
    system->set_role("system");
    system->set_content(options.system);
  }
  if (!options.messages.empty()) {
    MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.messages));
    const absl::Status status = bench::ParseMessages(text, &chat);
    if (!status.ok()) return Annotate(status, "--messages " + options.messages);
  }
  if (!options.tools.empty()) {
    MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.tools));
    const nlohmann::ordered_json tools = nlohmann::ordered_json::parse(text, nullptr, false);
    if (!tools.is_array()) return InvalidArgument("--tools {}: holds no JSON list", options.tools);
    chat.set_tools_json(tools.dump());
  }
  for (const std::string& argument : options.template_args) {
    const size_t equals = argument.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return InvalidArgument("--template-arg: '{}' is not NAME=VALUE, as in enable_thinking=false", argument);
    }
    (*chat.mutable_template_args())[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  return chat;
}

std::vector<std::pair<std::string, std::vector<std::string>>> GivenOptions(const RequestOptions& options) {
  std::vector<std::pair<std::string, std::vector<std::string>>> given;
  for (const RequestOptions::Added& each : options.added) {
    if (each.option->count() == 0) continue;
    given.emplace_back(each.name.substr(std::min(each.name.find_first_not_of('-'), each.name.size())),
                       each.option->results());
  }
  return given;
}

std::vector<std::pair<std::string, std::string>> RequestFields() {
  std::vector<std::pair<std::string, std::string>> fields;
  for (const Entry& entry : kTable) {
    std::string_view rest = entry.fields;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      fields.emplace_back(rest.substr(0, comma), NameOf(entry));
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
  }
  return fields;
}

}  // namespace mnemo::cli
