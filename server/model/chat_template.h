// Chat rendering for the template families of the supported models, without a template engine: a family is
// recognised from the text of the file's tokenizer.chat_template and rendered by our own code.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::model {

struct ChatMessage {
  std::string role;     // system | user | assistant | tool
  std::string content;  // UTF-8; control-token text in it stays text
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  bool omit_generation_prompt = false;
  bool continue_final_message = false;  // leave the last message's turn open
  std::map<std::string, std::string> template_args;
};

struct RenderedChat {
  std::string text;                // without begin-of-text where the tokenizer adds it
  std::vector<ByteRange> literal;  // bytes that came from messages: barred from becoming control tokens
  bool add_special = false;        // how to encode `text`
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  // `family_override` (configuration) names a family, or is empty: then the file's template decides, and
  // without one the architecture's family. UNIMPLEMENTED for an unknown template, saying how to override and
  // which families there are.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(const GgufFile& file,
                                                              std::string_view family_override);
  static std::vector<std::string> Families();  // "chatml", "llama2", "llama3", "mistral", "gemma", ...

  virtual std::string_view family() const = 0;
  // INVALID_ARGUMENT names the message by index and what the family does not allow (unknown role, order,
  // template_args).
  virtual absl::StatusOr<RenderedChat> Render(const ChatRequest& request) const = 0;
};

}  // namespace mnemo::model
