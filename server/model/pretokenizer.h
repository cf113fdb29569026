// Cuts a text into the pieces within which byte-level BPE merges, as the regular expressions of the model
// families do, by hand-written scanners that take linear time.
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
  bool isolate_digits = false;     // every numeric character is a piece; the splitter sees what is between
  int max_digits = 0;              // kLlama3: digits a piece
  bool normalizes = false;         // normalization form C first
  bool whole_piece_first = false;  // a piece that is a token needs no merges to it
  bool begins_by_default = false;  // add_bos_token when the file does not say
};

// By tokenizer.ggml.pre. nullopt: unknown.
std::optional<PreTokenizer> FindPreTokenizer(std::string_view name);
std::vector<std::string_view> PreTokenizerNames();

// The pieces of one text, one after the other; together they are the text.
class PieceScanner {
 public:
  PieceScanner(const PreTokenizer& pre, std::string_view text);
  bool done() const { return at_ == text_.size(); }
  // Not empty. done() is false.
  std::string_view Next();

 private:
  struct Char {
    Category category;
    char32_t code_point;
    size_t end;
  };
  Char CharAt(size_t at) const;
  // End of the run of characters of that category from `at` on.
  size_t RunEnd(size_t at, Category category) const;
  size_t ContractionEnd(bool ignore_case) const;  // 0 = there is none at at_
  size_t SpaceEnd() const;
  size_t Gpt2End() const;
  size_t Llama3End() const;
  void FindSegment();

  const Unicode& unicode_;
  const PreTokenizer pre_;
  const std::string_view text_;
  size_t at_ = 0;
  size_t limit_ = 0;  // end of the segment: what the splitter takes for the end of the text
};

}  // namespace mnemo::model
