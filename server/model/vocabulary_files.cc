#include "server/model/vocabulary_files.h"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

#include "server/model/utf8.h"
#include "tests/support/gguf_writer.h"

namespace mnemo::model {

TestVocabulary VocabularyFromJson(const nlohmann::json& stored) {
  TestVocabulary vocabulary;
  vocabulary.tokens = stored["tokens"].get<std::vector<std::string>>();
  for (const int kind : stored["kinds"]) vocabulary.kinds.push_back(static_cast<TokenKind>(kind));
  if (stored.contains("merges")) {
    vocabulary.pre = stored["pre"].get<std::string>();
    vocabulary.merges = stored["merges"].get<std::vector<std::string>>();
    return vocabulary;
  }
  vocabulary.model = "llama";
  vocabulary.pre = "default";
  vocabulary.scores = stored["scores"].get<std::vector<float>>();
  vocabulary.unknown_id = stored["unknown"].get<int32_t>();
  vocabulary.add_space_prefix = stored["add_space_prefix"].get<bool>();
  return vocabulary;
}

TestVocabulary ByteVocabulary() {
  TestVocabulary vocabulary;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    std::string token;
    AppendUtf8(printable ? byte : next++, &token);
    AddToken(&vocabulary, token, TokenKind::kNormal);
  }
  return vocabulary;
}

TestVocabulary SentencePieceVocabulary(const std::vector<std::string>& pieces) {
  TestVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.unknown_id = AddToken(&vocabulary, "<unk>", TokenKind::kUnknown);
  vocabulary.bos_id = AddToken(&vocabulary, "<s>", TokenKind::kControl);
  vocabulary.eos_id = AddToken(&vocabulary, "</s>", TokenKind::kControl);
  for (int byte = 0; byte < 256; ++byte)
    AddToken(&vocabulary, fmt::format("<0x{:02X}>", byte), TokenKind::kByte);
  for (const std::string& piece : pieces) AddToken(&vocabulary, piece, TokenKind::kNormal);
  return vocabulary;
}

int32_t AddToken(TestVocabulary* vocabulary, const std::string& text, TokenKind kind) {
  vocabulary->tokens.push_back(text);
  vocabulary->kinds.push_back(kind);
  if (vocabulary->model == "llama")
    vocabulary->scores.push_back(-static_cast<float>(vocabulary->scores.size()));
  return static_cast<int32_t>(vocabulary->tokens.size() - 1);
}

std::vector<std::byte> VocabularyImage(const TestVocabulary& vocabulary) {
  testing::GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", vocabulary.model);
  if (!vocabulary.pre.empty()) writer.AddString("tokenizer.ggml.pre", vocabulary.pre);
  writer.AddStrings("tokenizer.ggml.tokens", vocabulary.tokens);
  if (!vocabulary.kinds.empty()) {
    std::vector<int32_t> kinds;
    for (const TokenKind kind : vocabulary.kinds) kinds.push_back(static_cast<int32_t>(kind));
    writer.AddInts("tokenizer.ggml.token_type", kinds);
  }
  if (vocabulary.model == "gpt2") writer.AddStrings("tokenizer.ggml.merges", vocabulary.merges);
  if (!vocabulary.scores.empty()) writer.AddFloats("tokenizer.ggml.scores", vocabulary.scores);
  const auto add_id = [&](const char* key, int32_t id) {
    if (id >= 0) writer.AddUint32(key, static_cast<uint32_t>(id));
  };
  add_id("tokenizer.ggml.bos_token_id", vocabulary.bos_id);
  add_id("tokenizer.ggml.eos_token_id", vocabulary.eos_id);
  add_id("tokenizer.ggml.unknown_token_id", vocabulary.unknown_id);
  if (vocabulary.model == "llama")
    writer.AddBool("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  return writer.Bytes();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const TestVocabulary& vocabulary) {
  const std::vector<std::byte> image = VocabularyImage(vocabulary);
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Parse(image, "test.gguf", {}));
  return Tokenizer::FromGguf(*file);
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("cannot read " + path);
  return nlohmann::json::parse(stream);
}

std::string HashIds(const std::vector<int32_t>& ids) {
  uint32_t hash = 0x811C9DC5;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ ((static_cast<uint32_t>(id) >> shift) & 0xFF)) * 0x01000193;
    }
  }
  return fmt::format("{:08x}", hash);
}

}  // namespace mnemo::model
