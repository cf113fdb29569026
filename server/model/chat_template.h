// The chat template of a model: which one it is, its text, and what it is given. Rendering is done elsewhere,
// by Jinja (server/frontend/chat).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::model {

// Strings are UTF-8; an empty one is absent, but for content.
struct ChatMessage {
  std::string role;
  std::string content;  // control-token text in it stays text
  std::string name;
  std::string tool_call_id;
  std::string tool_calls_json;  // a JSON array
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  bool omit_generation_prompt = false;
  bool continue_final_message = false;               // leave the last message's turn open
  std::string tools_json;                            // a JSON array
  std::map<std::string, std::string> template_args;  // values that are JSON have its type
};

struct RenderedChat {
  std::string text;                // without begin-of-text where the tokenizer adds it
  std::vector<ByteRange> literal;  // ascending; bytes of the request: barred from becoming control tokens
  bool add_special = false;        // how to encode `text`
};

struct ChatTemplate {
  std::string origin;         // for messages: "tokenizer.chat_template of FILE"
  std::string text;           // Jinja
  std::string tool_use_text;  // for chats with tools; empty = `text` serves them too
  // "bos_token" and the like, with the texts of the file's tokens; a token that the file lacks is not there.
  std::map<std::string, std::string> special_tokens;
  bool encoder_adds_bos = false;  // and nothing at the end: then begin-of-text is left to it

  // `choice` (model.chat_template) is a family's name or the path of a file with a template, or empty: then
  // the file's own template is taken, and without one the family of its architecture. UNIMPLEMENTED when
  // there is none, INVALID_ARGUMENT when `choice` is neither; both say which families there are.
  static absl::StatusOr<ChatTemplate> Read(const GgufFile& file, std::string_view choice);
  static std::vector<std::string> Families();  // "chatml", "gemma", "llama2", ...
};

// Leaves a begin-of-text that the template wrote to the encoder where that adds it, so that there is one.
void LeaveBosToEncoder(const ChatTemplate& chat_template, RenderedChat* chat);

}  // namespace mnemo::model
