// The renderers of the template families. Each says in its comment which models' templates it follows.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/model/chat_template.h"
#include "server/model/chat_writer.h"

namespace mnemo::model {

// <|im_start|>role ... <|im_end|>
struct ChatmlOptions {
  std::string family = "chatml";
  std::string default_system;  // put first when the first message is no system message; empty = none
  bool writes_bos = false;
  bool groups_tools = false;  // Qwen2.5 and Qwen3: tool messages are a user's turn, in <tool_response> tags
  bool thinks = false;        // Qwen3: <think> parts, and the argument enable_thinking
};
std::unique_ptr<ChatTemplate> MakeChatml(const ChatTokens& tokens, ChatmlOptions options);

// <|start_header_id|>role<|end_header_id|>
struct Llama3Options {
  bool writes_bos = true;
  bool writes_dates = false;  // 3.1 and later: the system turn is always there and begins with two dates
};
std::unique_ptr<ChatTemplate> MakeLlama3(const ChatTokens& tokens, Llama3Options options);

// <start_of_turn>role ... <end_of_turn>
struct GemmaOptions {
  bool writes_bos = true;
  bool takes_system = true;  // Gemma 3: in front of the first user message. Gemma 1 and 2 refuse it.
};
std::unique_ptr<ChatTemplate> MakeGemma(const ChatTokens& tokens, GemmaOptions options);

// [INST] ... [/INST]
struct InstOptions {
  enum class Dialect {
    kLlama2,
    kMistralV0,      // 7B 0.1 and 0.2 as first published: no system message
    kMistralV1,      // ... as published later, and Mixtral
    kMistralV3,      // [INST] is a control token; a system message stands before the last user message
    kMistralTekken,  // the same with no blanks
    kMistralV7,      // [SYSTEM_PROMPT]
  };
  Dialect dialect = Dialect::kLlama2;
};
std::unique_ptr<ChatTemplate> MakeInst(const ChatTokens& tokens, InstOptions options);

// <|user|> ... end-of-text
std::unique_ptr<ChatTemplate> MakeZephyr(const ChatTokens& tokens);

}  // namespace mnemo::model
