#include "server/model/pretokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

constexpr PreTokenizer kGpt2 = {.splitter = PreTokenizer::Splitter::kGpt2};
// Digits one by one, then as gpt-2.
constexpr PreTokenizer kSmollm = {.splitter = PreTokenizer::Splitter::kGpt2, .isolate_digits = true};
constexpr PreTokenizer kLlama3 = {.splitter = PreTokenizer::Splitter::kLlama3,
                                  .max_digits = 3,
                                  .whole_piece_first = true,
                                  .begins_by_default = true};
constexpr PreTokenizer kQwen2 = {
    .splitter = PreTokenizer::Splitter::kLlama3, .max_digits = 1, .normalizes = true};

// Files from before the key existed, and those that say "default", hold the vocabulary of GPT-2 or are
// treated as if they did.
constexpr std::array<std::pair<std::string_view, PreTokenizer>, 9> kPreTokenizers = {{
    {"gpt-2", kGpt2},
    {"gpt2", kGpt2},
    {"default", kGpt2},
    {"smollm", kSmollm},
    {"llama-bpe", kLlama3},
    {"llama3", kLlama3},
    {"llama-v3", kLlama3},
    {"qwen2", kQwen2},
    {"qwen3", kQwen2},
}};

bool IsLineEnd(char32_t c) { return c == '\r' || c == '\n'; }

}  // namespace

std::optional<PreTokenizer> FindPreTokenizer(std::string_view name) {
  for (const auto& [known, pre] : kPreTokenizers) {
    if (known == name) return pre;
  }
  return std::nullopt;
}

std::vector<std::string_view> PreTokenizerNames() {
  std::vector<std::string_view> names;
  for (const auto& [name, pre] : kPreTokenizers) names.push_back(name);
  return names;
}

PieceScanner::PieceScanner(const PreTokenizer& pre, std::string_view text)
    : unicode_(Unicode::Get()), pre_(pre), text_(text), limit_(pre.isolate_digits ? 0 : text.size()) {}

PieceScanner::Char PieceScanner::CharAt(size_t at) const {
  const auto byte = static_cast<unsigned char>(text_[at]);
  if (byte < 0x80) return {unicode_.CategoryOf(byte), byte, at + 1};
  const Utf8Char c = DecodeUtf8(text_, at);
  if (c.code_point == kMalformed) return {kOther, kMalformed, at + c.length};
  Category category = unicode_.CategoryOf(c.code_point);
  if (category == kLateNumber) category = kOther;
  return {category, c.code_point, at + c.length};
}

size_t PieceScanner::RunEnd(size_t at, Category category) const {
  while (at < limit_) {
    const Char c = CharAt(at);
    if (c.category != category) break;
    at = c.end;
  }
  return at;
}

// Sets limit_ before the next numeric character, or behind it when it is at the current position.
void PieceScanner::FindSegment() {
  limit_ = at_;
  while (limit_ < text_.size()) {
    const Utf8Char c = DecodeUtf8(text_, limit_);
    const Category category = unicode_.CategoryOf(c.code_point);
    if (category == kNumber || category == kLateNumber) {
      if (limit_ == at_) limit_ += c.length;
      return;
    }
    limit_ += c.length;
  }
}

std::string_view PieceScanner::Next() {
  if (at_ == limit_) FindSegment();
  const size_t begin = at_;
  at_ = pre_.splitter == PreTokenizer::Splitter::kGpt2 ? Gpt2End() : Llama3End();
  return text_.substr(begin, at_ - begin);
}

// 's 't 're 've 'm 'll 'd
size_t PieceScanner::ContractionEnd(bool ignore_case) const {
  if (text_[at_] != '\'') return 0;
  const std::string_view rest = text_.substr(at_ + 1, std::min<size_t>(limit_ - at_ - 1, 2));
  const auto letter = [&](size_t i) {
    const char c = i < rest.size() ? rest[i] : '\0';
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  switch (letter(0)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return at_ + 2;
    case 'r':
    case 'v':
      return letter(1) == 'e' ? at_ + 3 : 0;
    case 'l':
      return letter(1) == 'l' ? at_ + 3 : 0;
    default:
      // U+017F, the long s, is an s to a regular expression that ignores case.
      return ignore_case && rest == "\xC5\xBF" ? at_ + 3 : 0;
  }
}

// \s+(?!\S)|\s+ : a run of white space leaves its last character to the text after it.
size_t PieceScanner::SpaceEnd() const {
  size_t last = at_;
  size_t end = CharAt(at_).end;
  while (end < limit_) {
    const Char c = CharAt(end);
    if (c.category != kSpace) return last > at_ ? last : end;
    last = end;
    end = c.end;
  }
  return end;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t PieceScanner::Gpt2End() const {
  if (const size_t end = ContractionEnd(false); end != 0) return end;
  const Char first = CharAt(at_);
  if (first.category != kSpace) return RunEnd(first.end, first.category);
  if (first.code_point == ' ' && first.end < limit_) {
    const Char second = CharAt(first.end);
    if (second.category != kSpace) return RunEnd(second.end, second.category);
  }
  return SpaceEnd();
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n]*
// |\s*[\r\n]+|\s+(?!\S)|\s+
size_t PieceScanner::Llama3End() const {
  if (const size_t end = ContractionEnd(true); end != 0) return end;
  const Char first = CharAt(at_);
  if (first.category == kLetter) return RunEnd(first.end, kLetter);
  if (first.category == kNumber) {
    size_t end = first.end;
    for (int digits = 1; digits < pre_.max_digits && end < limit_; ++digits) {
      const Char c = CharAt(end);
      if (c.category != kNumber) break;
      end = c.end;
    }
    return end;
  }
  const bool has_second = first.end < limit_;
  const Char second = has_second ? CharAt(first.end) : Char{kSpace, 0, first.end};
  if (!IsLineEnd(first.code_point) && has_second && second.category == kLetter) {
    return RunEnd(second.end, kLetter);
  }
  const bool symbols_after_blank = first.code_point == ' ' && has_second && second.category == kOther;
  if (first.category == kOther || symbols_after_blank) {
    size_t end = RunEnd(first.end, kOther);
    while (end < limit_ && IsLineEnd(static_cast<unsigned char>(text_[end]))) ++end;
    return end;
  }
  // White space: up to its last line end, if it has one.
  size_t line_end = 0;
  for (size_t at = at_; at < limit_;) {
    const Char c = CharAt(at);
    if (c.category != kSpace) break;
    at = c.end;
    if (IsLineEnd(c.code_point)) line_end = at;
  }
  return line_end != 0 ? line_end : SpaceEnd();
}

}  // namespace mnemo::model
