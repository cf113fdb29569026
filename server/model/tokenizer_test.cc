#include "server/model/tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <random>

#include "server/model/vocabulary_files.h"
#include "tests/support/gguf_writer.h"

namespace mnemo::model {
namespace {

std::unique_ptr<Tokenizer> Make(const TestVocabulary& vocabulary) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(vocabulary);
  INFO(tokenizer.status());
  REQUIRE(tokenizer.ok());
  return std::move(tokenizer).value();
}

std::vector<std::string> Pieces(const Tokenizer& tokenizer, std::string_view text,
                                const EncodeOptions& options = {}) {
  std::vector<std::string> pieces;
  for (const int32_t id : tokenizer.Encode(text, options)) pieces.emplace_back(tokenizer.Piece(id));
  return pieces;
}

std::string RandomBytes(std::mt19937* random, size_t longest) {
  // Biased towards lead and continuation bytes, white space and the characters of control tokens.
  constexpr std::string_view kCommon = "\xE2\x96\x80\xF0\x9F\xC3\xA9 \n\t<|>a1'";
  std::string bytes((*random)() % (longest + 1), '\0');
  for (char& c : bytes) {
    c = (*random)() % 2 == 0 ? kCommon[(*random)() % kCommon.size()] : static_cast<char>((*random)() & 0xFF);
  }
  return bytes;
}

using Strings = std::vector<std::string>;

TEST_CASE("the ids are those of the reference tokenizers, for vocabularies of every kind") {
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  const nlohmann::json strings = ReadJson(MNEMO_TEST_DATA "/tokenizer_strings.json");
  REQUIRE(strings.size() >= 2000);
  REQUIRE(golden["vocabularies"].size() >= 7);
  for (const auto& [name, stored] : golden["vocabularies"].items()) {
    const std::unique_ptr<Tokenizer> tokenizer = Make(VocabularyFromJson(stored));
    const std::string hashes = golden["hashes"][name].get<std::string>();
    REQUIRE(hashes.size() == 8 * strings.size());
    for (size_t i = 0; i < strings.size(); ++i) {
      const std::string text = strings[i].get<std::string>();
      const std::vector<int32_t> ids = tokenizer->Encode(text, {});
      INFO(name << ", string " << i << ": " << strings[i].dump() << " became " << fmt::format("{}", ids));
      CHECK(HashIds(ids) == hashes.substr(8 * i, 8));
    }
  }
}

TEST_CASE("any bytes survive a round trip") {
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  for (const std::string name : {"gpt-2", "smollm", "llama-bpe", "spm", "spm-no-prefix", "spm-unused"}) {
    const std::unique_ptr<Tokenizer> tokenizer = Make(VocabularyFromJson(golden["vocabularies"][name]));
    std::mt19937 random(5);
    for (int round = 0; round < 1500; ++round) {
      const std::string text = RandomBytes(&random, 60);
      // U+2581 is a blank to SentencePiece.
      if (text.find("\xE2\x96\x81") != std::string::npos) continue;
      INFO(name << ", round " << round << ", seed 5");
      CHECK(tokenizer->DecodeBytes(tokenizer->Encode(text, {}), false) == text);
    }
  }
}

TEST_CASE("normalization form C comes first where the family asks for it") {
  TestVocabulary vocabulary = ByteVocabulary();
  vocabulary.pre = "qwen2";
  const std::unique_ptr<Tokenizer> tokenizer = Make(vocabulary);
  const auto normalized = [&](std::string_view text) {
    return tokenizer->DecodeBytes(tokenizer->Encode(text, {}), false);
  };
  CHECK(normalized("e\u0301") == "\u00e9");
  CHECK(normalized("a\u0308\u0323") == "\u1ea1\u0308");  // reordered, then composed with the first alone
  CHECK(normalized("\u1100\u1161\u11a8") == "\uac01");   // Hangul
  CHECK(normalized("\u0958") == "\u0915\u093c");         // excluded from composition
  CHECK(normalized("e\xFF\u0301") == "e\xFF\u0301");     // not across a malformed byte
  CHECK(normalized("plain \xE4\xBD\xA0\xE5\xA5\xBD") == "plain \xE4\xBD\xA0\xE5\xA5\xBD");
}

TEST_CASE("long texts without a blank take no quadratic time") {
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  std::mt19937 random(3);
  std::string letters(1 << 20, 'a');
  for (char& c : letters) c = static_cast<char>('a' + random() % 26);
  for (const std::string name : {"gpt-2", "llama-bpe", "qwen2", "spm", "spm-unused"}) {
    const std::unique_ptr<Tokenizer> tokenizer = Make(VocabularyFromJson(golden["vocabularies"][name]));
    for (const std::string& text : {std::string(1 << 20, 'a'), letters, std::string(1 << 20, ' '),
                                    std::string(1 << 20, '\n'), std::string(1 << 20, '\xE2')}) {
      INFO(name << " " << static_cast<int>(text[0]));
      CHECK(tokenizer->DecodeBytes(tokenizer->Encode(text, {}), false) == text);
    }
  }
}

TEST_CASE("a stretch merged in windows has the ids that one merge gives") {
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  std::mt19937 random(11);
  for (const std::string name :
       {"gpt-2", "smollm", "llama-bpe", "qwen2", "spm", "spm-no-prefix", "spm-unused"}) {
    const std::unique_ptr<Tokenizer> tokenizer = Make(VocabularyFromJson(golden["vocabularies"][name]));
    const auto text_of = [&](size_t letters) {
      // Runs of common letters, doubled letters and the vocabulary's own pieces, which cause the most merges.
      std::string text;
      while (text.size() < letters) {
        const auto piece =
            tokenizer->Piece(static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->size())));
        const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
        if (std::all_of(piece.begin(), piece.end(), is_letter)) text += piece;
        text += std::string(random() % 4, static_cast<char>('a' + random() % 26));
        if (random() % 16 == 0) text += "\u00e9\u4e2d";
      }
      return text;
    };
    for (int round = 0; round < 300; ++round) {
      const std::string text = round % 10 == 0 ? std::string(500, "ae "[round / 10 % 3]) : text_of(400);
      const std::vector<int32_t> whole = tokenizer->Encode(text, {});
      for (const size_t window : {size_t{3}, size_t{17}, size_t{64}, size_t{300}}) {
        EncodeOptions options;
        options.window_bytes = window;
        INFO(name << ", round " << round << ", seed 11, window " << window << ": " << text);
        REQUIRE(tokenizer->Encode(text, options) == whole);
      }
    }
  }
}

TEST_CASE("encoding stops at the requested number of ids") {
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  for (const std::string name : {"gpt-2", "qwen2", "spm", "spm-unused"}) {
    const std::unique_ptr<Tokenizer> tokenizer = Make(VocabularyFromJson(golden["vocabularies"][name]));
    for (const std::string& text : {std::string(1 << 20, 'x'), [] {
                                      std::string words;
                                      while (words.size() < 1 << 20) words += "some words, ";
                                      return words;
                                    }()}) {
      const std::vector<int32_t> all = tokenizer->Encode(text, {});
      EncodeOptions options;
      options.max_ids = 1000;
      options.window_bytes = 4096;
      const std::vector<int32_t> some = tokenizer->Encode(text, options);
      INFO(name << ": " << some.size() << " of " << all.size());
      CHECK(some.size() > 1000);
      if (name != "spm-unused") CHECK(some.size() < 6000);
      options.max_ids = all.size();
      CHECK(tokenizer->Encode(text, options) == all);
    }
  }
}

TEST_CASE("control tokens are text unless asked for, and never where a message put them") {
  TestVocabulary vocabulary = ByteVocabulary();
  const int32_t end = AddToken(&vocabulary, "<|end|>", TokenKind::kControl);
  const std::unique_ptr<Tokenizer> tokenizer = Make(vocabulary);
  const auto ends = [&](std::string_view text, const EncodeOptions& options) {
    const std::vector<int32_t> ids = tokenizer->Encode(text, options);
    CHECK(tokenizer->DecodeBytes(ids, false) == text);
    return std::count(ids.begin(), ids.end(), end);
  };
  const std::string text = "a<|end|>b<|end|><|end|>";
  CHECK(ends(text, {}) == 0);
  CHECK(ends(text, {.parse_special = true}) == 3);
  SECTION("a literal range bars every match that it touches") {
    const std::vector<ByteRange> ranges = {{3, 4}, {9, 9}, {15, 17}};
    CHECK(ends(text, {.parse_special = true, .literal = ranges}) == 0);
    const std::vector<ByteRange> first = {{0, 8}};
    CHECK(ends(text, {.parse_special = true, .literal = first}) == 2);
    const std::vector<ByteRange> between = {{8, 9}};
    CHECK(ends(text, {.parse_special = true, .literal = between}) == 3);
    const std::vector<ByteRange> empty = {{4, 4}, {12, 12}};
    CHECK(ends(text, {.parse_special = true, .literal = empty}) == 3);
  }
  SECTION("half of it from a message and half from the template is text as well") {
    const std::vector<ByteRange> head = {{0, 4}};
    CHECK(ends("<|end|>", {.parse_special = true, .literal = head}) == 0);
  }
}

TEST_CASE("token texts match leftmost, then longest") {
  TestVocabulary vocabulary = ByteVocabulary();
  AddToken(&vocabulary, "<a>", TokenKind::kUserDefined);
  AddToken(&vocabulary, "<a>>", TokenKind::kControl);
  AddToken(&vocabulary, "x<a", TokenKind::kControl);
  const std::unique_ptr<Tokenizer> tokenizer = Make(vocabulary);
  CHECK(Pieces(*tokenizer, "x<a>>", {}) == Strings{"x", "<a>", ">"});
  CHECK(Pieces(*tokenizer, "<a>>", {.parse_special = true}) == Strings{"<a>>"});
  CHECK(Pieces(*tokenizer, "x<a>>", {.parse_special = true}) == Strings{"x<a", ">", ">"});
  const std::vector<ByteRange> literal = {{3, 4}};
  // The longer token is barred, and the shorter one is no control token.
  CHECK(Pieces(*tokenizer, "<a>>", {.parse_special = true, .literal = literal}) == Strings{"<a>", ">"});
}

TEST_CASE("SentencePiece: the blank in front of a text") {
  TestVocabulary vocabulary = SentencePieceVocabulary({"\u2581", "h", "i", "\u2581hi", "hi"});
  const std::unique_ptr<Tokenizer> with = Make(vocabulary);
  CHECK(with->strips_leading_space());
  CHECK(Pieces(*with, "hi") == Strings{" hi"});
  CHECK(Pieces(*with, " hi") == Strings{" ", " hi"});
  CHECK(with->Encode("", {}).empty());
  CHECK(with->DecodeBytes(with->Encode("hi", {}), false) == "hi");
  CHECK(Pieces(*with, "hi", {.add_special = true}) == Strings{"<s>", " hi"});
  // One blank follows a control token, whether the text has it or not.
  CHECK(Pieces(*with, "hi</s>hi", {.parse_special = true}) == Strings{" hi", "</s>", " hi"});
  CHECK(Pieces(*with, "hi</s> hi", {.parse_special = true}) == Strings{" hi", "</s>", " hi"});
  vocabulary.add_space_prefix = false;
  const std::unique_ptr<Tokenizer> without = Make(vocabulary);
  CHECK_FALSE(without->strips_leading_space());
  CHECK(Pieces(*without, "hi hi") == Strings{"hi", " hi"});
}

TEST_CASE("SentencePiece without byte tokens: a run of unknown characters is one unknown token") {
  TestVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.unknown_id = AddToken(&vocabulary, "<unk>", TokenKind::kUnknown);
  for (const std::string piece : {"\u2581", "a", "\u2581a"}) AddToken(&vocabulary, piece, TokenKind::kNormal);
  CHECK(Make(vocabulary)->Encode("abca b", {}) == std::vector<int32_t>{3, 0, 2, 1, 0});
}

TEST_CASE("tokens that end a generation, and tokens that begin a text") {
  TestVocabulary vocabulary = ByteVocabulary();
  vocabulary.bos_id = AddToken(&vocabulary, "<|begin_of_text|>", TokenKind::kControl);
  vocabulary.eos_id = AddToken(&vocabulary, "<|end_of_text|>", TokenKind::kControl);
  const int32_t eot = AddToken(&vocabulary, "<|eot_id|>", TokenKind::kControl);
  const int32_t eom = AddToken(&vocabulary, "<|eom_id|>", TokenKind::kControl);
  const std::unique_ptr<Tokenizer> gpt2 = Make(vocabulary);
  CHECK(Strings(1, std::string(gpt2->Piece(eot))) == Strings{"<|eot_id|>"});
  CHECK(std::vector<int32_t>(gpt2->end_ids().begin(), gpt2->end_ids().end()) ==
        std::vector<int32_t>{vocabulary.eos_id, eot, eom});
  CHECK_FALSE(gpt2->default_add_special());
  vocabulary.pre = "llama-bpe";
  const std::unique_ptr<Tokenizer> llama3 = Make(vocabulary);
  CHECK(llama3->default_add_special());
  CHECK(llama3->Encode("", {.add_special = true}) == std::vector<int32_t>{vocabulary.bos_id});
  CHECK(llama3->Decode(llama3->Encode("x", {.add_special = true}), true) == "x");
  CHECK(llama3->Decode(llama3->Encode("x", {.add_special = true}), false) == "<|begin_of_text|>x");
}

TEST_CASE("unknown or broken parts are refused by name") {
  const auto refusal = [](const TestVocabulary& vocabulary, absl::StatusCode code) {
    const absl::Status status = MakeTokenizer(vocabulary).status();
    CHECK(status.code() == code);
    return std::string(status.message());
  };
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  TestVocabulary vocabulary = ByteVocabulary();
  vocabulary.pre = "tekken";
  CHECK_THAT(refusal(vocabulary, kUnimplemented),
             Catch::Contains("\"tekken\"") && Catch::Contains("llama-bpe"));
  vocabulary = ByteVocabulary();
  vocabulary.model = "t5";
  CHECK_THAT(refusal(vocabulary, kUnimplemented), Catch::Contains("\"t5\"") && Catch::Contains("gpt2"));
  vocabulary = ByteVocabulary();
  vocabulary.merges = {"a b"};
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("tokenizer.ggml.merges[0]"));
  vocabulary.merges = {"ab"};
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("tokenizer.ggml.merges[0]"));
  vocabulary = ByteVocabulary();
  vocabulary.kinds.pop_back();
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("tokenizer.ggml.token_type"));
  vocabulary = ByteVocabulary();
  vocabulary.eos_id = 256;
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("eos_token_id") && Catch::Contains("[0, 256)"));
  vocabulary = SentencePieceVocabulary({"a"});
  vocabulary.scores.clear();
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("tokenizer.ggml.scores"));
  vocabulary = SentencePieceVocabulary({"a"});
  vocabulary.tokens[3] = "other";
  vocabulary.kinds[3] = TokenKind::kNormal;
  CHECK_THAT(refusal(vocabulary, kInvalid), Catch::Contains("255 of the 256 byte tokens"));
}

// Returns an image of a vocabulary with one of its keys removed or replaced.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeChanged(const std::string& model, int specials_at,
                                                       const std::function<void(testing::GgufWriter&)>& add,
                                                       size_t letters = 1) {
  testing::GgufWriter writer;
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  std::vector<float> scores;
  const auto token = [&](const std::string& text, int32_t kind) {
    tokens.push_back(text);
    kinds.push_back(kind);
    scores.push_back(-static_cast<float>(scores.size()));
  };
  for (int i = 0; i < 20; ++i) {
    if (i < specials_at || i >= specials_at + 3) token(std::string(letters, static_cast<char>('a' + i)), 1);
    if (i == specials_at) token("<unk>", 2);
    if (i == specials_at + 1) token("<begin>", 3);
    if (i == specials_at + 2) token("<end>", 3);
  }
  writer.AddString("tokenizer.ggml.model", model);
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddInts("tokenizer.ggml.token_type", kinds);
  if (model == "llama") writer.AddFloats("tokenizer.ggml.scores", scores);
  add(writer);
  return Tokenizer::FromGguf(**GgufFile::Parse(writer.Bytes(), "test.gguf", {}));
}

TEST_CASE(
    "ids of special tokens that a file does not name are the reference loader's where they are special") {
  const auto nothing = [](testing::GgufWriter&) {};
  const auto merges = [](testing::GgufWriter& writer) { writer.AddStrings("tokenizer.ggml.merges", {}); };
  const auto llama = MakeChanged("llama", 0, nothing);
  REQUIRE(llama.status() == absl::OkStatus());
  CHECK((*llama)->bos_id() == 1);
  CHECK(std::vector<int32_t>((*llama)->end_ids().begin(), (*llama)->end_ids().end()) ==
        std::vector<int32_t>{2});
  CHECK((*llama)->default_add_special());
  const auto gpt2 = MakeChanged("gpt2", 10, merges);
  REQUIRE(gpt2.status() == absl::OkStatus());
  CHECK((*gpt2)->bos_id() == 11);
  CHECK(std::vector<int32_t>((*gpt2)->end_ids().begin(), (*gpt2)->end_ids().end()) ==
        std::vector<int32_t>{11});
  // Letters at those ids: the vocabulary then has no begin and no end, rather than a letter that ends every
  // answer.
  const auto letters = MakeChanged("gpt2", 3, merges);
  REQUIRE(letters.status() == absl::OkStatus());
  CHECK((*letters)->bos_id() == -1);
  CHECK((*letters)->end_ids().empty());
}

TEST_CASE("keys of the tokenizer that would change ids are refused by name") {
  const auto refused = [](const std::string& model, const std::string& named,
                          const std::function<void(testing::GgufWriter&)>& add, size_t letters = 1) {
    INFO(named);
    const absl::Status status = MakeChanged(model, 0, add, letters).status();
    REQUIRE_FALSE(status.ok());
    CHECK_THAT(std::string(status.message()), Catch::Contains(named));
  };
  CHECK(MakeChanged("gpt2", 0, [](testing::GgufWriter&) {}).ok());  // single bytes: nothing to merge
  refused(
      "gpt2", "tokenizer.ggml.merges", [](testing::GgufWriter&) {}, 2);
  refused("gpt2", "tokenizer.ggml.add_space_prefix", [](testing::GgufWriter& writer) {
    writer.AddStrings("tokenizer.ggml.merges", {});
    writer.AddBool("tokenizer.ggml.add_space_prefix", true);
  });
  refused("gpt2", "tokenizer.ggml.bos_token_id", [](testing::GgufWriter& writer) {
    writer.AddStrings("tokenizer.ggml.merges", {});
    writer.AddBool("tokenizer.ggml.add_bos_token", true);
  });
  refused("gpt2", "tokenizer.ggml.eos_token_id", [](testing::GgufWriter& writer) {
    writer.AddStrings("tokenizer.ggml.merges", {});
    writer.AddBool("tokenizer.ggml.add_eos_token", true);
  });
  for (const char* key : {"tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.add_sep_token",
                          "tokenizer.ggml.normalizer.lowercase"}) {
    refused("llama", key, [key](testing::GgufWriter& writer) { writer.AddBool(key, true); });
    CHECK(MakeChanged("llama", 0, [key](testing::GgufWriter& writer) { writer.AddBool(key, false); }).ok());
  }
  refused("llama", "tokenizer.ggml.precompiled_charsmap", [](testing::GgufWriter& writer) {
    writer.AddInts("tokenizer.ggml.precompiled_charsmap", std::vector<int32_t>{7, 1});
  });
}

TEST_CASE("a damaged vocabulary is refused or works, and never does worse") {
  TestVocabulary bpe = ByteVocabulary();
  AddToken(&bpe, "ab", TokenKind::kNormal);
  AddToken(&bpe, "<|end|>", TokenKind::kControl);
  bpe.merges = {"a b"};
  bpe.eos_id = 257;
  std::mt19937 random(17);
  int refused = 0;
  int made = 0;
  for (const TestVocabulary& vocabulary : {bpe, SentencePieceVocabulary({"\u2581", "a", "\u2581a", "ab"})}) {
    const std::vector<std::byte> whole = VocabularyImage(vocabulary);
    for (int round = 0; round < 1500; ++round) {
      std::vector<std::byte> image = whole;
      for (int flips = 1 + static_cast<int>(random() % 3); flips > 0; --flips) {
        image[random() % image.size()] = static_cast<std::byte>(random() & 0xFF);
      }
      const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Parse(image, "damaged.gguf", {});
      if (!file.ok()) continue;
      const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(**file);
      if (!tokenizer.ok()) {
        ++refused;
        continue;
      }
      ++made;
      for (const int32_t id :
           (*tokenizer)->Encode("abba <|end|>\xFF", {.add_special = true, .parse_special = true})) {
        CHECK((id >= 0 && id < (*tokenizer)->size()));
      }
    }
  }
  CHECK(refused > 50);
  CHECK(made > 50);
}

}  // namespace
}  // namespace mnemo::model
