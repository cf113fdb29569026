// Splits a text into the pieces within which byte-level BPE merges. Hand-written scanners match the regular
// expressions of the model families in linear time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/unicode.h"

namespace mnemo::model {

struct PreTokenizer {
  enum class Splitter { kGpt2, kLlama3 };
  Splitter splitter = Splitter::kGpt2;
  // Every numeric character is a piece; the splitter sees the text between them.
  bool isolate_digits = false;
  // kLlama3: digits per piece.
  int max_digits = 0;
  // Applies normalization form C first.
  bool normalizes = false;
  // A piece that is a token needs no merges that lead to it.
  bool whole_piece_first = false;
  // add_bos_token when the file does not state it.
  bool begins_by_default = false;
};

// Finds an entry by tokenizer.ggml.pre. nullopt: unknown.
std::optional<PreTokenizer> FindPreTokenizer(std::string_view name);
std::vector<std::string_view> PreTokenizerNames();

// Iterates over the pieces of one text, which together are the whole text.
class PieceScanner {
 public:
  PieceScanner(const PreTokenizer& pre, std::string_view text);
  bool done() const { return at_ == text_.size(); }
  // Returns the next piece, which is not empty. done() must be false.
  std::string_view Next();

 private:
  struct Char {
    Category category;
    char32_t code_point;
    size_t end;
  };
  Char CharAt(size_t at) const;
  // Returns the end of the run of characters of that category from `at` on.
  size_t RunEnd(size_t at, Category category) const;
  // 0: there is none at at_.
  size_t ContractionEnd(bool ignore_case) const;
  size_t SpaceEnd() const;
  size_t Gpt2End() const;
  size_t Llama3End() const;
  void FindSegment();

  const Unicode& unicode_;
  const PreTokenizer pre_;
  const std::string_view text_;
  size_t at_ = 0;
  // End of the segment, which the splitter treats as the end of the text.
  size_t limit_ = 0;
};

}  // namespace mnemo::model
