// Which tokens of a vocabulary are control tokens and which end an answer: the file's types, the markers of
// its chat template and the known names of the families, taken together.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/tokenizer.h"

namespace mnemo::model {

// A file's words about its tokens. All views outlive the call of DecideTokenRoles.
struct TokenEvidence {
  std::span<const std::string_view> texts;
  std::span<const TokenKind> kinds;          // as many; empty: the file types no token
  std::span<const std::string_view> merges;  // byte-level BPE: "left right"; empty otherwise
  std::string_view templates;                // the text of all chat templates
  std::span<const int32_t> named_ids;        // bos, padding and the like: -1 = none
  std::span<const int32_t> end_ids;          // eos, eot, eom: -1 = none
  bool is_sentencepiece = false;
};

struct TokenRoles {
  std::vector<TokenKind> kinds;    // as many as texts
  std::vector<int32_t> end_ids;    // ascending, each once: tokens that end an answer
  std::vector<std::string> notes;  // for the log, in which the file contradicts itself; mostly empty
};

// The byte of a SentencePiece byte token, "<0x0A>"; -1: it is written otherwise.
int ParseByteToken(std::string_view text);

// The rule, with its reasons, stands in docs/TEXT.md ("Control tokens"). Where the sources differ, the safe
// reading is taken: a turn marker is a control token, whatever its type.
TokenRoles DecideTokenRoles(const TokenEvidence& evidence);

}  // namespace mnemo::model
