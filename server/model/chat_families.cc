#include "server/model/chat_families.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace mnemo::model {
namespace {

absl::Status WrongRole(size_t index, std::string_view family, const ChatMessage& message,
                       std::string_view allowed) {
  return InvalidArgument("messages[{}].role: \"{}\" is not allowed here by the chat template family {}; {}",
                         index, message.role, family, allowed);
}

absl::Status CheckKnownRoles(const ChatRequest& request, std::string_view family,
                             std::initializer_list<std::string_view> roles) {
  for (size_t i = 0; i < request.messages.size(); ++i) {
    const ChatMessage& message = request.messages[i];
    if (std::find(roles.begin(), roles.end(), message.role) == roles.end()) {
      return WrongRole(i, family, message, fmt::format("it takes {}", fmt::join(roles, ", ")));
    }
  }
  return absl::OkStatus();
}

// user, assistant, user, ... from messages[first] on.
absl::Status CheckAlternation(const ChatRequest& request, std::string_view family, size_t first) {
  for (size_t i = first; i < request.messages.size(); ++i) {
    const std::string_view wanted = (i - first) % 2 == 0 ? "user" : "assistant";
    if (request.messages[i].role != wanted) {
      return WrongRole(
          i, family, request.messages[i],
          fmt::format("after an optional system message, user and assistant take turns: {} is due", wanted));
    }
  }
  if (first == request.messages.size()) {
    return InvalidArgument("messages: the chat template family {} needs a user message", family);
  }
  return absl::OkStatus();
}

// Checks what holds for every family, then lets it render.
class Family : public ChatTemplate {
 public:
  Family(const ChatTokens& tokens, std::string name, std::vector<std::string> arguments)
      : tokens_(tokens), name_(std::move(name)), arguments_(std::move(arguments)) {}

  std::string_view family() const override { return name_; }

  absl::StatusOr<RenderedChat> Render(const ChatRequest& request) const override {
    if (request.messages.empty()) return InvalidArgument("messages: at least one is needed");
    for (const auto& [key, value] : request.template_args) {
      if (std::find(arguments_.begin(), arguments_.end(), key) != arguments_.end()) continue;
      return InvalidArgument(
          "template_args[\"{}\"]: the chat template family {} takes {}", key, name_,
          arguments_.empty() ? "no arguments" : fmt::format("{}", fmt::join(arguments_, ", ")));
    }
    ChatWriter writer(tokens_);
    MNEMO_RETURN_IF_ERROR(Write(request, &writer));
    return writer.Take();
  }

 protected:
  virtual absl::Status Write(const ChatRequest& request, ChatWriter* writer) const = 0;
  // True for the message whose turn stays open.
  static bool StaysOpen(const ChatRequest& request, size_t index) {
    return request.continue_final_message && index + 1 == request.messages.size();
  }
  static bool PromptsGeneration(const ChatRequest& request) {
    return !request.omit_generation_prompt && !request.continue_final_message;
  }

 private:
  const ChatTokens tokens_;
  const std::string name_;
  const std::vector<std::string> arguments_;
};

// ChatML as OpenHermes has it, and what SmolLM2, Qwen1.5 to 2.5 and Qwen3 made of it.
class Chatml : public Family {
 public:
  Chatml(const ChatTokens& tokens, ChatmlOptions options)
      : Family(tokens, options.family,
               options.thinks ? std::vector<std::string>{"enable_thinking"} : std::vector<std::string>{}),
        options_(std::move(options)) {}

 protected:
  absl::Status Write(const ChatRequest& request, ChatWriter* writer) const override {
    MNEMO_RETURN_IF_ERROR(CheckKnownRoles(request, family(), {"system", "user", "assistant", "tool"}));
    bool enable_thinking = true;
    if (const auto argument = request.template_args.find("enable_thinking");
        argument != request.template_args.end()) {
      if (argument->second != "true" && argument->second != "false") {
        return InvalidArgument("template_args[\"enable_thinking\"]: \"{}\" is neither true nor false",
                               argument->second);
      }
      enable_thinking = argument->second == "true";
    }
    if (options_.writes_bos) writer->WriteBos();
    if (request.messages[0].role != "system" && !options_.default_system.empty()) {
      writer->Write("<|im_start|>system\n" + options_.default_system + "<|im_end|>\n");
    }
    const size_t last_query = LastQuery(request);
    for (size_t i = 0; i < request.messages.size(); ++i) WriteMessage(request, i, last_query, writer);
    if (PromptsGeneration(request)) {
      writer->Write("<|im_start|>assistant\n");
      if (!enable_thinking) writer->Write("<think>\n\n</think>\n\n");
    }
    return absl::OkStatus();
  }

 private:
  // The last message that is a user's question and not a tool's answer in a user's turn.
  static size_t LastQuery(const ChatRequest& request) {
    for (size_t i = request.messages.size(); i-- > 0;) {
      const ChatMessage& message = request.messages[i];
      const bool is_answer =
          message.content.starts_with("<tool_response>") && message.content.ends_with("</tool_response>");
      if (message.role == "user" && !is_answer) return i;
    }
    return request.messages.size() - 1;
  }

  void WriteMessage(const ChatRequest& request, size_t index, size_t last_query, ChatWriter* writer) const {
    const ChatMessage& message = request.messages[index];
    const bool open = StaysOpen(request, index);
    if (message.role == "tool" && options_.groups_tools) {
      const auto is_tool = [&](size_t i) {
        return i < request.messages.size() && request.messages[i].role == "tool";
      };
      if (index == 0 || !is_tool(index - 1)) writer->Write("<|im_start|>user");
      writer->Write("\n<tool_response>\n");
      writer->WriteLiteral(message.content);
      if (open) return;
      writer->Write("\n</tool_response>");
      if (!is_tool(index + 1)) writer->Write("<|im_end|>\n");
      return;
    }
    writer->Write("<|im_start|>" + message.role + "\n");
    if (message.role == "assistant" && options_.thinks) {
      WriteThoughts(request, index, last_query, writer);
    } else {
      writer->WriteLiteral(message.content);
    }
    if (!open) writer->Write("<|im_end|>\n");
  }

  // Thoughts of turns before the last question are left out; after it they are written, at the end even if
  // there are none.
  static void WriteThoughts(const ChatRequest& request, size_t index, size_t last_query, ChatWriter* writer) {
    constexpr std::string_view kOpen = "<think>";
    constexpr std::string_view kClose = "</think>";
    std::string_view content = request.messages[index].content;
    std::string_view thoughts;
    if (const size_t first_close = content.find(kClose); first_close != std::string_view::npos) {
      thoughts = StripLineFeeds(content.substr(0, first_close), false, true);
      if (const size_t open = thoughts.rfind(kOpen); open != std::string_view::npos) {
        thoughts.remove_prefix(open + kOpen.size());
      }
      thoughts = StripLineFeeds(thoughts, true, false);
      content = StripLineFeeds(content.substr(content.rfind(kClose) + kClose.size()), true, false);
    }
    const bool is_last = index + 1 == request.messages.size();
    if (index > last_query && (is_last || !thoughts.empty())) {
      writer->Write("<think>\n");
      writer->WriteLiteral(StripLineFeeds(thoughts, true, true));
      writer->Write("\n</think>\n\n");
      content = StripLineFeeds(content, true, false);
    }
    writer->WriteLiteral(content);
  }

  const ChatmlOptions options_;
};

class Llama3 : public Family {
 public:
  Llama3(const ChatTokens& tokens, Llama3Options options)
      : Family(tokens, "llama3",
               options.writes_dates ? std::vector<std::string>{"date_string"} : std::vector<std::string>{}),
        options_(options) {}

 protected:
  absl::Status Write(const ChatRequest& request, ChatWriter* writer) const override {
    MNEMO_RETURN_IF_ERROR(CheckKnownRoles(request, family(), {"system", "user", "assistant", "tool"}));
    if (options_.writes_bos) writer->WriteBos();
    size_t first = 0;
    if (options_.writes_dates) {
      // The date of the models' own templates where none is given: a prompt that changes by the day would be
      // no prefix of yesterday's.
      const auto date = request.template_args.find("date_string");
      WriteHeader("system", writer);
      writer->Write("Cutting Knowledge Date: December 2023\nToday Date: ");
      if (date == request.template_args.end()) {
        writer->Write("26 Jul 2024");
      } else {
        writer->WriteLiteral(date->second);
      }
      writer->Write("\n\n");
      if (request.messages[0].role == "system") {
        writer->WriteLiteral(Strip(request.messages[0].content));
        first = 1;
      }
      if (first == 0 || !StaysOpen(request, 0)) writer->Write("<|eot_id|>");
    }
    for (size_t i = first; i < request.messages.size(); ++i) {
      const ChatMessage& message = request.messages[i];
      if (options_.writes_dates && message.role == "tool") {
        WriteHeader("ipython", writer);
        writer->WriteLiteral(JsonString(message.content));
      } else {
        WriteHeader(message.role, writer);
        writer->WriteLiteral(Strip(message.content));
      }
      if (!StaysOpen(request, i)) writer->Write("<|eot_id|>");
    }
    if (PromptsGeneration(request)) WriteHeader("assistant", writer);
    return absl::OkStatus();
  }

 private:
  static void WriteHeader(std::string_view role, ChatWriter* writer) {
    writer->Write(fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role));
  }
  const Llama3Options options_;
};

class Gemma : public Family {
 public:
  Gemma(const ChatTokens& tokens, GemmaOptions options) : Family(tokens, "gemma", {}), options_(options) {}

 protected:
  absl::Status Write(const ChatRequest& request, ChatWriter* writer) const override {
    const bool has_system = request.messages[0].role == "system";
    if (has_system && !options_.takes_system) {
      return WrongRole(0, family(), request.messages[0], "this model's template has no place for it");
    }
    const size_t first = has_system ? 1 : 0;
    MNEMO_RETURN_IF_ERROR(CheckAlternation(request, family(), first));
    if (options_.writes_bos) writer->WriteBos();
    for (size_t i = first; i < request.messages.size(); ++i) {
      const ChatMessage& message = request.messages[i];
      writer->Write(message.role == "user" ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
      if (i == first && has_system) {
        writer->WriteLiteral(request.messages[0].content);
        writer->Write("\n\n");
      }
      writer->WriteLiteral(Strip(message.content));
      if (!StaysOpen(request, i)) writer->Write("<end_of_turn>\n");
    }
    if (PromptsGeneration(request)) writer->Write("<start_of_turn>model\n");
    return absl::OkStatus();
  }

 private:
  const GemmaOptions options_;
};

class Inst : public Family {
 public:
  Inst(const ChatTokens& tokens, InstOptions options)
      : Family(tokens, options.dialect == Dialect::kLlama2 ? "llama2" : "mistral", {}),
        dialect_(options.dialect) {}

 protected:
  absl::Status Write(const ChatRequest& request, ChatWriter* writer) const override {
    MNEMO_RETURN_IF_ERROR(CheckKnownRoles(request, family(), {"system", "user", "assistant"}));
    if (dialect_ == Dialect::kMistralV7) {
      WriteInAnyOrder(request, writer);
      return absl::OkStatus();
    }
    const ChatMessage* const system = request.messages[0].role == "system" ? &request.messages[0] : nullptr;
    if (system != nullptr && dialect_ == Dialect::kMistralV0) {
      return WrongRole(0, family(), *system, "this model's template has no place for it");
    }
    const size_t first = system != nullptr ? 1 : 0;
    MNEMO_RETURN_IF_ERROR(CheckAlternation(request, family(), first));
    if (dialect_ != Dialect::kLlama2) writer->WriteBos();
    const bool system_last = dialect_ == Dialect::kMistralV3 || dialect_ == Dialect::kMistralTekken;
    for (size_t i = first; i < request.messages.size(); ++i) {
      const ChatMessage& message = request.messages[i];
      if (message.role == "assistant") {
        WriteAnswer(message.content, StaysOpen(request, i), writer);
        continue;
      }
      const bool takes_system = i == (system_last ? request.messages.size() - 1 : first);
      WriteQuestion(message.content, takes_system ? system : nullptr, StaysOpen(request, i), writer);
    }
    return absl::OkStatus();
  }

 private:
  using Dialect = InstOptions::Dialect;

  void WriteQuestion(std::string_view content, const ChatMessage* system, bool open,
                     ChatWriter* writer) const {
    if (dialect_ == Dialect::kLlama2) {
      writer->WriteBos();
      writer->Write("[INST] ");
      if (system != nullptr) {
        writer->Write("<<SYS>>\n");
        writer->WriteLiteral(system->content);
        writer->Write("\n<</SYS>>\n\n");
        writer->WriteLiteral(StripRight(content));
      } else {
        writer->WriteLiteral(Strip(content));
      }
      if (!open) writer->Write(" [/INST]");
      return;
    }
    const bool is_v1 = dialect_ == Dialect::kMistralV1;
    writer->Write(is_v1 ? " [INST] " : dialect_ == Dialect::kMistralTekken ? "[INST]" : "[INST] ");
    if (system != nullptr) {
      writer->WriteLiteral(system->content);
      writer->Write("\n\n");
    }
    writer->WriteLiteral(content);
    if (!open) writer->Write(is_v1 || dialect_ == Dialect::kMistralV0 ? " [/INST]" : "[/INST]");
  }

  void WriteAnswer(std::string_view content, bool open, ChatWriter* writer) const {
    const bool strips = dialect_ == Dialect::kLlama2 || dialect_ == Dialect::kMistralV3;
    if (dialect_ != Dialect::kMistralV0 && dialect_ != Dialect::kMistralTekken) writer->Write(" ");
    writer->WriteLiteral(strips ? Strip(content) : content);
    if (open) return;
    if (dialect_ == Dialect::kLlama2) writer->Write(" ");
    writer->WriteEos();
  }

  // Mistral Large 2411: messages in any order, and system messages in a turn of their own.
  void WriteInAnyOrder(const ChatRequest& request, ChatWriter* writer) const {
    writer->WriteBos();
    for (size_t i = 0; i < request.messages.size(); ++i) {
      const ChatMessage& message = request.messages[i];
      const bool open = StaysOpen(request, i);
      if (message.role == "user") {
        WriteQuestion(message.content, nullptr, open, writer);
      } else if (message.role == "assistant") {
        WriteAnswer(message.content, open, writer);
      } else {
        writer->Write("[SYSTEM_PROMPT] ");
        writer->WriteLiteral(message.content);
        if (!open) writer->Write("[/SYSTEM_PROMPT]");
      }
    }
  }

  const Dialect dialect_;
};

// Zephyr and TinyLlama.
class Zephyr : public Family {
 public:
  explicit Zephyr(const ChatTokens& tokens) : Family(tokens, "zephyr", {}) {}

 protected:
  absl::Status Write(const ChatRequest& request, ChatWriter* writer) const override {
    MNEMO_RETURN_IF_ERROR(CheckKnownRoles(request, family(), {"system", "user", "assistant"}));
    for (size_t i = 0; i < request.messages.size(); ++i) {
      writer->Write(fmt::format("<|{}|>\n", request.messages[i].role));
      writer->WriteLiteral(request.messages[i].content);
      if (StaysOpen(request, i)) continue;
      writer->WriteEos();
      writer->Write("\n");
    }
    if (PromptsGeneration(request)) writer->Write("<|assistant|>\n");
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<ChatTemplate> MakeChatml(const ChatTokens& tokens, ChatmlOptions options) {
  return std::make_unique<Chatml>(tokens, std::move(options));
}
std::unique_ptr<ChatTemplate> MakeLlama3(const ChatTokens& tokens, Llama3Options options) {
  return std::make_unique<Llama3>(tokens, options);
}
std::unique_ptr<ChatTemplate> MakeGemma(const ChatTokens& tokens, GemmaOptions options) {
  return std::make_unique<Gemma>(tokens, options);
}
std::unique_ptr<ChatTemplate> MakeInst(const ChatTokens& tokens, InstOptions options) {
  return std::make_unique<Inst>(tokens, options);
}
std::unique_ptr<ChatTemplate> MakeZephyr(const ChatTokens& tokens) {
  return std::make_unique<Zephyr>(tokens);
}

}  // namespace mnemo::model
