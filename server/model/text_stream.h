// Converts a stream of token ids to a stream of valid UTF-8 text, with stop strings matched and cut.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/tokenizer.h"

namespace mnemo::model {

// Appends to `out` the valid UTF-8 form of `bytes`: each maximal malformed subsequence becomes U+FFFD. With
// `final` false, an incomplete character at the end is left over. Returns the number of leading bytes
// consumed.
size_t AppendValidUtf8(std::string_view bytes, bool final, std::string* out);
bool IsValidUtf8(std::string_view text);

// The text of one generation. The joined results of Append and Finish are the part of Tokenizer::Decode of
// prompt and generated ids that follows Decode of the prompt. A stop match cuts the text before the match.
// The blank that SentencePiece adds to a text is thus removed only at the start of the prompt. A character
// that begins in the prompt is returned as a whole. Text that may become part of a stop match or of a
// character is held back. Of several stop matches, the one that completes first counts, and of those that end
// together the longest.
class TextStream {
 public:
  // The tokenizer must outlive the object, `prompt` only the call. Prompt ids outside of the vocabulary
  // contribute no text. `stop`: each not empty; matched in the generated text only.
  TextStream(const Tokenizer& tokenizer, bool include_special, std::vector<std::string> stop,
             std::span<const int32_t> prompt = {});

  struct Result {
    // May be empty; whole UTF-8 characters.
    std::string text;
    // A stop string matched; nothing more may be appended.
    bool stopped = false;
    std::string stop_matched;
  };
  // Control tokens contribute no text unless include_special.
  Result Append(int32_t id);
  // Returns the text that was held back.
  Result Finish();

 private:
  void ReadPrompt(std::span<const int32_t> prompt);
  // Emits the text of the prompt's last character once it is complete; returns false while it is incomplete.
  bool FinishPromptCharacter();
  Result Scan(bool final);
  const Tokenizer& tokenizer_;
  bool include_special_;
  std::vector<std::string> stop_;
  // End of an incomplete character.
  std::string pending_bytes_;
  // Valid UTF-8 that may be the start of a stop match.
  std::string held_text_;
  // pending_bytes_ begins with bytes of the prompt.
  bool in_prompt_character_ = false;
  bool at_start_ = true;
  bool stopped_ = false;
};

}  // namespace mnemo::model
