// Shared by the chat families: the text being rendered, and which of its bytes came from messages.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "server/model/chat_template.h"

namespace mnemo::model {

// What the templates know of the vocabulary.
struct ChatTokens {
  std::string bos;  // text; empty = none
  std::string eos;
  bool encoder_adds_bos = false;  // and nothing at the end: then begin-of-text is left to it
};

class ChatWriter {
 public:
  explicit ChatWriter(const ChatTokens& tokens) : tokens_(tokens) {}

  // Text of the template.
  void Write(std::string_view text) { chat_.text.append(text); }
  // Text of a message: literal.
  void WriteLiteral(std::string_view text);
  // Begin-of-text: at the very start it is left to the encoder where that adds it.
  void WriteBos();
  void WriteEos() { Write(tokens_.eos); }

  RenderedChat Take() { return std::move(chat_); }

 private:
  const ChatTokens& tokens_;
  RenderedChat chat_;
};

// Without white space at both ends, as Python's str.strip() and Jinja's trim see it.
std::string_view Strip(std::string_view text);
std::string_view StripRight(std::string_view text);
// Without line feeds at both ends.
std::string_view StripLineFeeds(std::string_view text, bool left, bool right);
// The text as a JSON string, quotes included; characters past ASCII stay as they are.
std::string JsonString(std::string_view text);

}  // namespace mnemo::model
