// The chat template of a model: its selection, its text and its inputs. Jinja renders it elsewhere
// (server/frontend/chat).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::model {

// Strings are UTF-8. An empty string means absent, except for content.
struct ChatMessage {
  std::string role;
  // Control-token text in it stays text.
  std::string content;
  std::string name;
  std::string tool_call_id;
  // A JSON array.
  std::string tool_calls_json;
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  bool omit_generation_prompt = false;
  // Leaves the last message's turn open.
  bool continue_final_message = false;
  // A JSON array.
  std::string tools_json;
  // Values that are valid JSON keep their JSON type.
  std::map<std::string, std::string> template_args;
};

struct RenderedChat {
  // Without begin-of-text where the tokenizer adds it.
  std::string text;
  // Ascending ranges of the request's bytes, which must not become control tokens.
  std::vector<ByteRange> literal;
  // How to encode `text`.
  bool add_special = false;
};

struct ChatTemplate {
  // Name for messages: "tokenizer.chat_template of FILE".
  std::string origin;
  // Jinja source.
  std::string text;
  // For chats with tools; empty: `text` serves them too.
  std::string tool_use_text;
  // "bos_token" and similar names, with the texts of the file's tokens. Tokens that the file lacks are
  // absent.
  std::map<std::string, std::string> special_tokens;
  // True when the encoder adds begin-of-text and nothing at the end; begin-of-text is then left to it.
  bool encoder_adds_bos = false;

  // Selects a template. `choice` (model.chat_template) is a family's name or the path of a template file.
  // When empty, the file's own template is used, or else the family of its architecture. UNIMPLEMENTED when
  // there is none, INVALID_ARGUMENT when `choice` is neither; both messages list the families.
  static absl::StatusOr<ChatTemplate> Read(const GgufFile& file, std::string_view choice);
  static std::vector<std::string> Families();  // "chatml", "gemma", "llama2", ...
};

// Removes a begin-of-text that the template wrote when the encoder adds one, so that there is exactly one.
void LeaveBosToEncoder(const ChatTemplate& chat_template, RenderedChat* chat);

}  // namespace mnemo::model
