#include "devices/base/display_name.h"

#include <fmt/format.h>

#include <cstdint>

namespace mnemo {
namespace {

struct Character {
  uint32_t code_point = 0;
  // 0: the bytes are not valid UTF-8.
  size_t length = 0;
};

// Decodes one character by table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above
// U+10FFFF.
Character CharacterAt(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + length > text.size()) return {};
  uint32_t code_point = lead & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<uint8_t>(text[at + i]);
    if ((byte & 0xC0) != 0x80) return {};
    code_point = (code_point << 6) | (byte & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  if (code_point < kLeast[length] || code_point > 0x10FFFF || is_surrogate) return {};
  return {code_point, length};
}

bool IsControl(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x2028 || c == 0x2029 || c == 0x200E || c == 0x200F ||
         c == 0x061C || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string NameProblem(std::string_view name) {
  if (name.size() > kMaxNameBytes) {
    return fmt::format("has {} bytes; at most {} are allowed", name.size(), kMaxNameBytes);
  }
  for (size_t at = 0; at < name.size();) {
    const Character c = CharacterAt(name, at);
    if (c.length == 0) return fmt::format("is no UTF-8 at byte {}", at);
    if (IsControl(c.code_point)) return fmt::format("has a control character at byte {}", at);
    at += c.length;
  }
  return "";
}

std::string SafeName(std::string_view name) {
  std::string safe;
  for (size_t at = 0; at < name.size();) {
    const Character c = CharacterAt(name, at);
    const size_t length = c.length == 0 ? 1 : c.length;
    const bool is_shown = c.length != 0 && !IsControl(c.code_point);
    if (safe.size() + (is_shown ? length : 1) > kMaxNameBytes) break;
    if (is_shown) {
      safe.append(name.substr(at, length));
    } else {
      safe.push_back('_');
    }
    at += length;
  }
  return safe;
}

}  // namespace mnemo
