#include "server/model/chat_writer.h"

#include <fmt/format.h>

#include "server/model/unicode.h"
#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

// Python counts the four separators of ASCII as white space too.
bool IsPythonSpace(uint32_t code_point) {
  return Unicode::Get().CategoryOf(code_point) == kSpace || (code_point >= 0x1C && code_point <= 0x1F);
}

}  // namespace

void ChatWriter::WriteLiteral(std::string_view text) {
  if (text.empty()) return;
  const size_t begin = chat_.text.size();
  chat_.text.append(text);
  if (!chat_.literal.empty() && chat_.literal.back().end == begin) {
    chat_.literal.back().end = chat_.text.size();
  } else {
    chat_.literal.push_back({begin, chat_.text.size()});
  }
}

void ChatWriter::WriteBos() {
  if (chat_.text.empty() && !chat_.add_special && tokens_.encoder_adds_bos) {
    chat_.add_special = true;
  } else {
    Write(tokens_.bos);
  }
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    // Back to the first byte of the last character.
    size_t at = text.size() - 1;
    while (at > 0 && text.size() - at < 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.code_point == kMalformed || at + c.length != text.size() || !IsPythonSpace(c.code_point)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

std::string_view Strip(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text, 0);
    if (c.code_point == kMalformed || !IsPythonSpace(c.code_point)) break;
    text.remove_prefix(c.length);
  }
  return StripRight(text);
}

std::string_view StripLineFeeds(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        json += "\\\"";
        break;
      case '\\':
        json += "\\\\";
        break;
      case '\n':
        json += "\\n";
        break;
      case '\r':
        json += "\\r";
        break;
      case '\t':
        json += "\\t";
        break;
      case '\b':
        json += "\\b";
        break;
      case '\f':
        json += "\\f";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          json += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          json += c;
        }
    }
  }
  return json + "\"";
}

}  // namespace mnemo::model
