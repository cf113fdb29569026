#include "server/model/text_stream.h"

#include <algorithm>
#include <utility>

#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;

// Returns the number of plain ASCII bytes from `at` on.
size_t AsciiRun(std::string_view bytes, size_t at) {
  const size_t begin = at;
  for (uint64_t word = 0; at + sizeof(word) <= bytes.size(); at += sizeof(word)) {
    bytes.copy(reinterpret_cast<char*>(&word), sizeof(word), at);
    if ((word & kHighBits) != 0) break;
  }
  while (at < bytes.size() && static_cast<uint8_t>(bytes[at]) < 0x80) ++at;
  return at - begin;
}

// Returns the length of the longest suffix of `text`, shorter than `stop`, that is a prefix of `stop`.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

size_t AppendValidUtf8(std::string_view bytes, bool final, std::string* out) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (const size_t run = AsciiRun(bytes, at); run != 0) {
      out->append(bytes.substr(at, run));
      at += run;
      continue;
    }
    const Utf8Char c = DecodeUtf8(bytes, at);
    if (c.code_point != kMalformed) {
      out->append(bytes.substr(at, c.length));
    } else {
      if (c.incomplete && !final) break;
      out->append(kReplacement);
    }
    at += c.length;
  }
  return at;
}

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    at += AsciiRun(text, at);
    if (at == text.size()) break;
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.code_point == kMalformed) return false;
    at += c.length;
  }
  return true;
}

TextStream::TextStream(const Tokenizer& tokenizer, bool include_special, std::vector<std::string> stop,
                       std::span<const int32_t> prompt)
    : tokenizer_(tokenizer), include_special_(include_special), stop_(std::move(stop)) {
  for (const std::string& text : stop_) MNEMO_CHECK(!text.empty());
  ReadPrompt(prompt);
}

void TextStream::ReadPrompt(std::span<const int32_t> prompt) {
  constexpr size_t kLongestCharacter = 4;
  std::string tail;
  while (!prompt.empty() && tail.size() < kLongestCharacter) {
    const int32_t id = prompt.back();
    prompt = prompt.first(prompt.size() - 1);
    if (id < 0 || id >= tokenizer_.size() || (tokenizer_.IsControl(id) && !include_special_)) continue;
    const std::string_view piece = tokenizer_.Piece(id);
    at_start_ = at_start_ && piece.empty();
    tail.insert(0, piece.substr(piece.size() - std::min(piece.size(), kLongestCharacter)));
  }
  // Starts at the last byte that begins a character: the character is either complete or incomplete.
  size_t begin = tail.size();
  while (begin > 0 && (static_cast<uint8_t>(tail[begin - 1]) & 0xC0) == 0x80) --begin;
  if (begin == 0) return;
  const Utf8Char c = DecodeUtf8(tail, begin - 1);
  in_prompt_character_ = c.code_point == kMalformed && c.incomplete;
  if (in_prompt_character_) pending_bytes_ = tail.substr(begin - 1);
}

bool TextStream::FinishPromptCharacter() {
  const Utf8Char c = DecodeUtf8(pending_bytes_, 0);
  if (c.code_point == kMalformed) {
    if (c.incomplete) return false;
    // The character stays malformed: its U+FFFD belongs to the prompt's text.
    pending_bytes_.erase(0, c.length);
  }
  in_prompt_character_ = false;
  return true;
}

TextStream::Result TextStream::Append(int32_t id) {
  MNEMO_CHECK(!stopped_);
  const bool is_control = tokenizer_.IsControl(id);
  if (is_control && !include_special_) return {};
  std::string_view piece = tokenizer_.Piece(id);
  const bool was_cut =
      at_start_ && tokenizer_.strips_leading_space() && !is_control && piece.starts_with(' ');
  if (was_cut) piece.remove_prefix(1);
  at_start_ = at_start_ && piece.empty() && !was_cut;
  if (in_prompt_character_) {
    pending_bytes_.append(piece);
    if (!FinishPromptCharacter()) return {};
    pending_bytes_.erase(0, AppendValidUtf8(pending_bytes_, false, &held_text_));
  } else if (pending_bytes_.empty()) {
    pending_bytes_.assign(piece.substr(AppendValidUtf8(piece, false, &held_text_)));
  } else {
    pending_bytes_.append(piece);
    pending_bytes_.erase(0, AppendValidUtf8(pending_bytes_, false, &held_text_));
  }
  return Scan(false);
}

TextStream::Result TextStream::Finish() {
  if (stopped_) return {};
  if (in_prompt_character_) pending_bytes_.clear();  // never completed: the U+FFFD is the prompt's
  AppendValidUtf8(pending_bytes_, true, &held_text_);
  pending_bytes_.clear();
  return Scan(true);
}

// Searches held_text_ for stop strings. held_text_ begins where the last returned text ended. Returned text
// cannot begin a match, since such text was held back. The match that completes first wins, and among those
// that end together the longest. The result thus does not depend on how the text was cut into tokens.
TextStream::Result TextStream::Scan(bool final) {
  Result result;
  size_t begin = 0;
  const std::string* match = nullptr;
  for (const std::string& stop : stop_) {
    const size_t at = held_text_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (match == nullptr || end < begin + match->size() || (end == begin + match->size() && at < begin)) {
      begin = at;
      match = &stop;
    }
  }
  if (match != nullptr) {
    stopped_ = true;
    result.stopped = true;
    result.stop_matched = *match;
    result.text = held_text_.substr(0, begin);
    held_text_.clear();
    pending_bytes_.clear();
    return result;
  }
  size_t held = 0;
  if (!final) {
    for (const std::string& stop : stop_) held = std::max(held, PartialMatch(held_text_, stop));
  }
  // Returns whole characters only.
  size_t length = held_text_.size() - held;
  while (length > 0 && length < held_text_.size() &&
         (static_cast<uint8_t>(held_text_[length]) & 0xC0) == 0x80) {
    --length;
  }
  result.text = held_text_.substr(0, length);
  held_text_.erase(0, length);
  return result;
}

}  // namespace mnemo::model
