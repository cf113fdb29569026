#include "server/frontend/validate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "devices/base/range.h"
#include "server/frontend/range_check.h"
#include "server/frontend/status_text.h"

namespace mnemo::frontend {
namespace {

// A prompt above the context is counted up to at least this many tokens, for the message of the refusal.
constexpr size_t kCountedTokens = 1 << 18;

absl::Status NotAvailable(std::string_view field) {
  return Unimplemented("{}: not available in this build; leave the field out", field);
}

absl::Status CheckFeatures(const v1::GenerateRequest& request) {
  if (request.has_retrieval()) return NotAvailable("retrieval");
  if (request.has_context_memory()) return NotAvailable("context_memory");
  switch (request.sampling().constraint_case()) {
    case v1::Sampling::kJsonSchema:
      return NotAvailable("sampling.json_schema (constraint)");
    case v1::Sampling::kRegex:
      return NotAvailable("sampling.regex (constraint)");
    case v1::Sampling::kGrammar:
      return NotAvailable("sampling.grammar (constraint)");
    case v1::Sampling::CONSTRAINT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::Status CheckNames(const v1::GenerateRequest& request) {
  if (request.request_id().size() > kMaxRequestIdBytes) {
    return InvalidArgument("request_id: {} bytes long; at most {}", request.request_id().size(),
                           kMaxRequestIdBytes);
  }
  for (const char c : request.request_id()) {
    if (c < 0x20 || c > 0x7E) {
      return InvalidArgument("request_id: byte 0x{:02x}; only printable ASCII is allowed",
                             static_cast<unsigned char>(c));
    }
  }
  return request.session_id().empty() ? absl::OkStatus() : CheckSessionId(request.session_id());
}

// Order and defaults as generation.proto states them.
absl::Status FillSampling(const v1::Sampling& in, const Drawn& drawn, internal::v1::SamplingParams* out) {
  out->set_temperature(in.has_temperature() ? in.temperature() : 1.0f);
  out->set_top_k(in.top_k());
  out->set_top_p(in.has_top_p() ? in.top_p() : 1.0f);
  out->set_min_p(in.min_p());
  out->set_repetition_penalty(in.has_repetition_penalty() ? in.repetition_penalty() : 1.0f);
  out->set_presence_penalty(in.presence_penalty());
  out->set_frequency_penalty(in.frequency_penalty());
  out->set_seed(in.has_seed() ? in.seed() : drawn.seed);
  MNEMO_RETURN_IF_ERROR(CheckFieldRange("sampling.temperature", out->temperature(), 0, 5));
  MNEMO_RETURN_IF_ERROR(
      CheckFieldRange("sampling.top_k", out->top_k(), 0, std::numeric_limits<int32_t>::max()));
  MNEMO_RETURN_IF_ERROR(CheckFloatAbove("sampling.top_p", out->top_p(), 0, 1));
  MNEMO_RETURN_IF_ERROR(CheckFieldRange("sampling.min_p", out->min_p(), 0, 1));
  MNEMO_RETURN_IF_ERROR(CheckFloatAbove("sampling.repetition_penalty", out->repetition_penalty(), 0, 10));
  MNEMO_RETURN_IF_ERROR(CheckFieldRange("sampling.presence_penalty", out->presence_penalty(), -2, 2));
  return CheckFieldRange("sampling.frequency_penalty", out->frequency_penalty(), -2, 2);
}

absl::Status FillStops(const v1::Sampling& in, const ServedModel& model, Submission* valid) {
  if (in.stop_size() > kMaxStopStrings) {
    return InvalidArgument("sampling.stop: {} strings; at most {}", in.stop_size(), kMaxStopStrings);
  }
  for (int i = 0; i < in.stop_size(); ++i) {
    if (in.stop(i).empty() || in.stop(i).size() > kMaxStopBytes) {
      return InvalidArgument("sampling.stop[{}]: {} bytes long; allowed: [1, {}]", i, in.stop(i).size(),
                             kMaxStopBytes);
    }
    valid->text.stop.push_back(in.stop(i));
  }
  valid->submit.set_at_once(in.stop_size() > 0);
  std::vector<int32_t>& ids = valid->text.stop_token_ids;
  for (int i = 0; i < in.stop_token_ids_size(); ++i) {
    MNEMO_RETURN_IF_ERROR(CheckId("sampling.stop_token_ids", i, in.stop_token_ids(i), model.vocabulary()));
    ids.push_back(in.stop_token_ids(i));
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  valid->submit.mutable_end_ids()->Add(ids.begin(), ids.end());
  valid->text.ignore_eos = in.ignore_eos();
  if (!in.ignore_eos()) {
    valid->submit.mutable_end_ids()->Add(model.end_ids.begin(), model.end_ids.end());
  }
  return absl::OkStatus();
}

absl::Status FillBias(const v1::Sampling& in, const ServedModel& model, internal::v1::Submit* submit) {
  if (in.logit_bias_size() > kMaxLogitBias) {
    return InvalidArgument("sampling.logit_bias: {} entries; at most {}", in.logit_bias_size(),
                           kMaxLogitBias);
  }
  // Ascending ids: a map has no order of its own, and equal requests should make equal messages.
  std::vector<std::pair<int32_t, float>> sorted(in.logit_bias().begin(), in.logit_bias().end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [id, bias] : sorted) {
    if (id < 0 || id >= model.vocabulary()) {
      return InvalidArgument("sampling.logit_bias: id {} is out of range; allowed: [0, {})", id,
                             model.vocabulary());
    }
    MNEMO_RETURN_IF_ERROR(CheckFieldRange(fmt::format("sampling.logit_bias[{}]", id), bias, -100, 100));
    submit->add_bias_ids(id);
    submit->add_bias_values(bias);
  }
  return absl::OkStatus();
}

absl::Status CheckTextLength(std::string_view field, size_t text_bytes, const ServedModel& model) {
  // No token stands for more bytes than the longest piece. So a longer text is refused without tokenizing it,
  // which would hold up other requests.
  const size_t most = static_cast<size_t>(model.context_tokens) * model.longest_piece_bytes;
  if (text_bytes <= most) return absl::OkStatus();
  return InvalidArgument("{}: {} bytes cannot fit {}; at most {} bytes", field, text_bytes,
                         model.ContextText(), most);
}

absl::Status CheckChatLength(const v1::Chat& chat, const ServedModel& model) {
  if (chat.messages_size() > model.context_tokens) {
    return InvalidArgument("chat.messages: {} of them cannot fit {}", chat.messages_size(),
                           model.ContextText());
  }
  size_t bytes = 0;
  for (const v1::Chat::Message& message : chat.messages()) bytes += message.content().size();
  return CheckTextLength("chat", bytes, model);
}

absl::Status FillPrompt(const v1::GenerateRequest& request, const ServedModel& model,
                        internal::v1::Submit* submit) {
  const bool is_prompt = request.input_case() == v1::GenerateRequest::kPrompt;
  if (!is_prompt && request.parse_special()) {
    return InvalidArgument("parse_special: only with prompt");
  }
  if (!is_prompt && request.has_add_special()) return InvalidArgument("add_special: only with prompt");
  // A text that is too long is tokenized only as far as the refusal needs.
  const size_t max_ids = std::max(kCountedTokens, 4 * static_cast<size_t>(model.context_tokens));
  std::string_view field;
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt: {
      field = "prompt";
      if (request.prompt().empty()) return InvalidArgument("prompt: empty; at least 1 token is needed");
      MNEMO_RETURN_IF_ERROR(CheckTextLength(field, request.prompt().size(), model));
      model::EncodeOptions options;
      options.add_special =
          request.has_add_special() ? request.add_special() : model.tokenizer->default_add_special();
      options.parse_special = request.parse_special();
      options.max_ids = max_ids;
      const std::vector<int32_t> ids = model.tokenizer->Encode(request.prompt(), options);
      submit->mutable_prompt()->Add(ids.begin(), ids.end());
      break;
    }
    case v1::GenerateRequest::kTokenIds: {
      field = "token_ids";
      const auto& ids = request.token_ids().ids();
      for (int i = 0; i < ids.size(); ++i) {
        MNEMO_RETURN_IF_ERROR(CheckId("token_ids.ids", i, ids[i], model.vocabulary()));
      }
      *submit->mutable_prompt() = ids;
      break;
    }
    case v1::GenerateRequest::kChat: {
      field = "chat";
      MNEMO_RETURN_IF_ERROR(CheckChatLength(request.chat(), model));
      MNEMO_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, EncodeChat(request.chat(), model, max_ids));
      submit->mutable_prompt()->Add(ids.begin(), ids.end());
      break;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      return InvalidArgument("input: none; one of prompt, token_ids and chat is needed");
  }
  if (submit->prompt().empty()) return InvalidArgument("{}: empty; at least 1 token is needed", field);
  if (submit->prompt_size() > model.context_tokens) {
    const bool is_counted = static_cast<size_t>(submit->prompt_size()) <= max_ids;
    return InvalidArgument(
        "{}: {}{} tokens are longer than the context; at most {}{}{}", field, is_counted ? "" : "more than ",
        is_counted ? static_cast<size_t>(submit->prompt_size()) : max_ids, model.context_tokens,
        model.context_bound.empty() ? "" : ", which is what fits ", model.context_bound);
  }
  return absl::OkStatus();
}

absl::Status FillMaxTokens(const v1::Sampling& in, const ServedModel& model, int limit,
                           internal::v1::Submit* submit) {
  const int left = model.context_tokens - submit->prompt_size();
  const bool is_limited = limit > 0 && limit < left;
  const int most = is_limited ? limit : left;
  if (!in.has_max_tokens()) {
    submit->set_max_tokens(most);
    submit->set_lower_to_pool(true);
    return absl::OkStatus();
  }
  if (in.max_tokens() > most) {
    return InvalidArgument(
        "sampling.max_tokens: {} is out of range; allowed: [0, {}], {}", in.max_tokens(), most,
        is_limited
            ? std::string("the server's limits.max_tokens")
            : fmt::format("what {} prompt tokens leave of {}", submit->prompt_size(), model.ContextText()));
  }
  submit->set_max_tokens(in.max_tokens());
  return absl::OkStatus();
}

absl::Status FillOutput(const v1::Output& in, Submission* valid) {
  internal::v1::Submit* submit = &valid->submit;
  const int prompt_tokens = submit->prompt_size();
  submit->set_logprobs(in.has_logprobs() ? in.logprobs() : -1);
  submit->set_prompt_logprobs(in.has_prompt_logprobs() ? in.prompt_logprobs() : -1);
  submit->set_prompt_logprobs_from(in.prompt_logprobs_from());
  submit->set_decode_from(in.decode_from());
  valid->text.include_special_tokens = in.include_special_tokens();
  // Positions of this prompt only. Without prompt_logprobs the field has no meaning.
  if (in.has_prompt_logprobs()) {
    MNEMO_RETURN_IF_ERROR(
        CheckFieldRange("output.prompt_logprobs_from", in.prompt_logprobs_from(), 0, prompt_tokens - 1));
  }
  if (in.has_decode_from()) {
    MNEMO_RETURN_IF_ERROR(CheckFieldRange("output.decode_from", in.decode_from(), 1, prompt_tokens));
  }
  return absl::OkStatus();
}

// The checks that need no tokenized prompt.
absl::Status CheckOutput(const v1::Output& in) {
  if (in.has_logprobs()) {
    MNEMO_RETURN_IF_ERROR(CheckFieldRange("output.logprobs", in.logprobs(), 0, kMaxLogprobs));
  }
  if (in.has_prompt_logprobs()) {
    MNEMO_RETURN_IF_ERROR(CheckFieldRange("output.prompt_logprobs", in.prompt_logprobs(), 0, kMaxLogprobs));
  }
  if (in.prompt_logprobs_from() < 0) {
    return InvalidArgument("output.prompt_logprobs_from: {} is out of range; at least 0",
                           in.prompt_logprobs_from());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Submission> Validate(const v1::GenerateRequest& request, const ServedModel& model,
                                    const AttentionServing& attention, int max_tokens_limit,
                                    const Drawn& drawn) {
  Submission valid;
  internal::v1::Submit* submit = &valid.submit;
  MNEMO_RETURN_IF_ERROR(CheckModelName(request.model(), model));
  MNEMO_RETURN_IF_ERROR(CheckFeatures(request));
  MNEMO_RETURN_IF_ERROR(FillAttention(request, attention, submit));
  MNEMO_RETURN_IF_ERROR(CheckNames(request));
  MNEMO_RETURN_IF_ERROR(FillSampling(request.sampling(), drawn, submit->mutable_sampling()));
  if (request.sampling().max_tokens() < 0) {
    return InvalidArgument("sampling.max_tokens: {} is out of range; at least 0",
                           request.sampling().max_tokens());
  }
  MNEMO_RETURN_IF_ERROR(FillStops(request.sampling(), model, &valid));
  MNEMO_RETURN_IF_ERROR(FillBias(request.sampling(), model, submit));
  MNEMO_RETURN_IF_ERROR(CheckOutput(request.output()));
  MNEMO_RETURN_IF_ERROR(FillPrompt(request, model, submit));
  MNEMO_RETURN_IF_ERROR(FillMaxTokens(request.sampling(), model, max_tokens_limit, submit));
  MNEMO_RETURN_IF_ERROR(FillOutput(request.output(), &valid));
  submit->set_request_id(request.request_id().empty() ? drawn.request_id : request.request_id());
  submit->set_session_id(request.session_id());
  submit->set_priority(request.priority());
  return valid;
}

absl::Status FitToContext(const ServedModel& model, internal::v1::Submit* submit) {
  if (submit->prompt().empty()) return Internal("prompt: empty after the passes that changed it");
  const int left = model.context_tokens - submit->prompt_size();
  if (left < 0) {
    return InvalidArgument("prompt: {} tokens, with what was added to it, are longer than {}",
                           submit->prompt_size(), model.ContextText());
  }
  if (submit->max_tokens() <= left) return absl::OkStatus();
  if (!submit->lower_to_pool()) {
    return InvalidArgument(
        "sampling.max_tokens: {} is out of range; allowed: [0, {}], what {} prompt tokens, with what was "
        "added to them, leave of {}",
        submit->max_tokens(), left, submit->prompt_size(), model.ContextText());
  }
  submit->set_max_tokens(left);
  return absl::OkStatus();
}

size_t TextBytes(const v1::Chat& chat) { return chat.ByteSizeLong(); }

size_t TextBytes(const v1::GenerateRequest& request) {
  return request.has_chat() ? TextBytes(request.chat()) : request.prompt().size();
}

absl::Status CheckModelName(const std::string& name, const ServedModel& model) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  return NotFound("model: {} is not served here; served: {}", Quoted(name), Quoted(model.name));
}

absl::Status CheckSessionId(const std::string& session_id) {
  const auto is_allowed = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  if (session_id.empty() || session_id.size() > kMaxSessionIdBytes ||
      !std::all_of(session_id.begin(), session_id.end(), is_allowed)) {
    return InvalidArgument("session_id: {} is not allowed; allowed: [A-Za-z0-9._-]{{1,{}}}",
                           Quoted(session_id), kMaxSessionIdBytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> EncodeChat(const v1::Chat& chat, const ServedModel& model,
                                                size_t max_ids) {
  if (chat.messages().empty()) return InvalidArgument("chat.messages: empty; at least 1 is needed");
  model::ChatRequest render;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::Chat::Message& message = chat.messages(i);
    if (message.role().empty()) return InvalidArgument("chat.messages[{}].role: empty", i);
    render.messages.push_back({message.role(), message.content(), message.name(), message.tool_call_id(),
                               message.tool_calls_json()});
  }
  if (!model.chat.ok()) return model.chat.status();
  render.omit_generation_prompt = chat.omit_generation_prompt();
  render.continue_final_message = chat.continue_final_message();
  render.tools_json = chat.tools_json();
  render.template_args.insert(chat.template_args().begin(), chat.template_args().end());
  MNEMO_ASSIGN_OR_RETURN(const model::RenderedChat rendered, (*model.chat)->Render(render));
  model::EncodeOptions options;
  options.add_special = rendered.add_special;
  options.parse_special = true;
  options.literal = rendered.literal;
  options.max_ids = max_ids;
  return model.tokenizer->Encode(rendered.text, options);
}

absl::StatusOr<std::vector<int32_t>> EncodeForTokenize(const v1::TokenizeRequest& request,
                                                       const ServedModel& model, size_t max_ids) {
  MNEMO_RETURN_IF_ERROR(CheckModelName(request.model(), model));
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText: {
      model::EncodeOptions options;
      options.add_special = request.add_special();
      options.parse_special = request.parse_special();
      options.max_ids = max_ids;
      return model.tokenizer->Encode(request.text(), options);
    }
    case v1::TokenizeRequest::kChat:
      if (request.add_special()) return InvalidArgument("add_special: only with text");
      if (request.parse_special()) return InvalidArgument("parse_special: only with text");
      return EncodeChat(request.chat(), model, max_ids);
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidArgument("input: none; one of text and chat is needed");
}

std::vector<std::string> Features(const ServedModel& model, bool has_sparse_attention) {
  std::vector<std::string> names = {"prompt",
                                    "token_ids",
                                    "parse_special",
                                    "add_special",
                                    "session_id",
                                    "priority",
                                    "max_tokens",
                                    "temperature",
                                    "top_k",
                                    "top_p",
                                    "min_p",
                                    "repetition_penalty",
                                    "seed",
                                    "presence_penalty",
                                    "stop",
                                    "frequency_penalty",
                                    "stop_token_ids",
                                    "ignore_eos",
                                    "logit_bias",
                                    "logprobs",
                                    "decode_from",
                                    "prompt_logprobs",
                                    "prompt_logprobs_from",
                                    "include_special_tokens"};
  if (model.ChatStatus().ok()) {
    for (const char* name : {"chat", "name", "tool_call_id", "tool_calls_json", "tools_json",
                             "omit_generation_prompt", "continue_final_message", "template_args"}) {
      names.emplace_back(name);
    }
  }
  if (has_sparse_attention) {
    for (const char* name : {"attention", "token_budget", "keep_first", "keep_last", "reuse_interval",
                             "first_stage_tokens", "key_bits", "placement"}) {
      names.emplace_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace mnemo::frontend
