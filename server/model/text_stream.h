// From a stream of token ids to a stream of valid UTF-8 text, with stop strings matched and cut.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/tokenizer.h"

namespace mnemo::model {

// Appends to `out` the valid UTF-8 form of `bytes`: each maximal malformed subsequence becomes U+FFFD. With
// `final` false an incomplete character at the end is left over; returns the count of leading bytes consumed.
size_t AppendValidUtf8(std::string_view bytes, bool final, std::string* out);
bool IsValidUtf8(std::string_view text);

// One generation. The texts that Append and Finish return, joined, are what Tokenizer::Decode of prompt and
// generated ids has behind Decode of the prompt, except that a stop match cuts them in front of the match. So
// the blank that SentencePiece puts in front of a text is taken away at the start of the prompt alone, and a
// character that begins in the prompt is given out as a whole. Text that may still become part of a stop
// match or of a character is held back. Of several stop matches the one that is complete first counts, and of
// those that end together the longest.
class TextStream {
 public:
  // The tokenizer outlives the object, `prompt` only the call; its ids without an entry in the vocabulary
  // stand for nothing. `stop`: each not empty; matched in the generated text alone.
  TextStream(const Tokenizer& tokenizer, bool include_special, std::vector<std::string> stop,
             std::span<const int32_t> prompt = {});

  struct Result {
    std::string text;      // may be empty; whole UTF-8 characters
    bool stopped = false;  // a stop string matched; nothing more is to be appended
    std::string stop_matched;
  };
  // Control tokens contribute no text unless include_special.
  Result Append(int32_t id);
  // Releases what was held back.
  Result Finish();

 private:
  void ReadPrompt(std::span<const int32_t> prompt);
  // Text of the prompt's last character once it is complete; false as long as that is open.
  bool FinishPromptCharacter();
  Result Scan(bool final);
  const Tokenizer& tokenizer_;
  bool include_special_;
  std::vector<std::string> stop_;
  std::string pending_bytes_;         // tail of an incomplete character
  std::string held_text_;             // valid UTF-8, may be the start of a stop match
  bool in_prompt_character_ = false;  // pending_bytes_ begins with bytes of the prompt
  bool at_start_ = true;
  bool stopped_ = false;
};

}  // namespace mnemo::model
