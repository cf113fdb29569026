// Vocabularies for the tokenizers' tests: from tokenizer_golden.json, and small generated ones.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/model/tokenizer.h"

namespace mnemo::model {

struct TestVocabulary {
  std::string model = "gpt2";  // tokenizer.ggml.model
  std::string pre = "gpt-2";   // empty: the key is absent
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;     // empty: the key is absent
  std::vector<std::string> merges;  // gpt2 only
  std::vector<float> scores;        // llama only
  int32_t bos_id = -1;              // -1: the key is absent
  int32_t eos_id = -1;
  int32_t unknown_id = -1;
  bool add_space_prefix = true;
};

// Reads an entry of "vocabularies" in the golden file.
TestVocabulary VocabularyFromJson(const nlohmann::json& stored);
// The 256 bytes in the byte alphabet, ids 0..255, no merges.
TestVocabulary ByteVocabulary();
// "<unk>", "<s>", "</s>", the 256 byte tokens, then these pieces with falling scores.
TestVocabulary SentencePieceVocabulary(const std::vector<std::string>& pieces);
// Adds a token of that kind; returns its id.
int32_t AddToken(TestVocabulary* vocabulary, const std::string& text, TokenKind kind);

// A GGUF file that contains only the vocabulary.
std::vector<std::byte> VocabularyImage(const TestVocabulary& vocabulary);
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const TestVocabulary& vocabulary);

nlohmann::json ReadJson(const std::string& path);
// FNV-1a, 32 bits, over the ids as little-endian int32, as eight hexadecimal digits.
std::string HashIds(const std::vector<int32_t>& ids);

}  // namespace mnemo::model
