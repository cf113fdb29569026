#include "server/frontend/status_text.h"

#include "server/model/text_stream.h"

namespace mnemo::frontend {
namespace {

constexpr size_t kMaxQuotedBytes = 64;

std::string ValidUtf8(std::string_view bytes) {
  std::string text;
  model::AppendValidUtf8(bytes, true, &text);
  return text;
}

// The longest prefix of at most `limit` bytes that ends on a character's end.
std::string_view CutAtCharacter(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

std::string StatusMessage(const absl::Status& status) {
  const std::string message = ValidUtf8(std::string(status.message()));
  return std::string(CutAtCharacter(message, kMaxStatusMessageBytes));
}

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

std::string Quoted(std::string_view text) {
  std::string shown = ValidUtf8(CutAtCharacter(text, kMaxQuotedBytes));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return "'" + shown + (text.size() > kMaxQuotedBytes ? "...'" : "'");
}

}  // namespace mnemo::frontend
