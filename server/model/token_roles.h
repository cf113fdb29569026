// Decides which tokens of a vocabulary are control tokens and which end an answer. The sources are the file's
// types, the markers of its chat template and the known names of the families.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/tokenizer.h"

namespace mnemo::model {

// A file's statements about its tokens. All views must outlive the call of DecideTokenRoles.
struct TokenEvidence {
  std::span<const std::string_view> texts;
  // As many as texts; empty: the file types no token.
  std::span<const TokenKind> kinds;
  // Byte-level BPE: "left right"; empty otherwise.
  std::span<const std::string_view> merges;
  // The text of all chat templates.
  std::string_view templates;
  // bos, padding and the like; -1: none.
  std::span<const int32_t> named_ids;
  // eos, eot, eom; -1: none.
  std::span<const int32_t> end_ids;
  bool is_sentencepiece = false;
};

struct TokenRoles {
  // As many as texts.
  std::vector<TokenKind> kinds;
  // Ascending, each once: tokens that end an answer.
  std::vector<int32_t> end_ids;
  // Contradictions of the file, for the log; mostly empty.
  std::vector<std::string> notes;
};

// Returns the byte of a SentencePiece byte token, "<0x0A>"; -1 for other texts.
int ParseByteToken(std::string_view text);

// docs/TEXT.md ("Control tokens") states the rule and its reasons. Where the sources differ, the safe reading
// applies: a turn marker is a control token, whatever its type.
TokenRoles DecideTokenRoles(const TokenEvidence& evidence);

}  // namespace mnemo::model
