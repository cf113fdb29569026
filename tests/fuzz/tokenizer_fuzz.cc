// Any text through small vocabularies of every kind: the bytes come back, control tokens appear only where
// they may, and a stream of the tokens is their text. Byte 0 chooses the vocabulary, byte 1 the options,
// bytes 2 and 3 a literal range.
#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/text_stream.h"
#include "server/model/tokenizer.h"
#include "server/model/unicode.h"
#include "server/model/vocabulary_files.h"

namespace {

using mnemo::model::AddToken;
using mnemo::model::ByteRange;
using mnemo::model::EncodeOptions;
using mnemo::model::TestVocabulary;
using mnemo::model::Tokenizer;
using mnemo::model::TokenKind;

constexpr std::string_view kBlankMark = "\xE2\x96\x81";

struct Subject {
  std::unique_ptr<Tokenizer> tokenizer;
  bool normalizes = false;    // normalization form C
  bool marks_blanks = false;  // U+2581 is a blank
};

void AddControl(TestVocabulary* vocabulary) {
  AddToken(vocabulary, "<|a|>", TokenKind::kControl);
  AddToken(vocabulary, "<|a", TokenKind::kControl);
  AddToken(vocabulary, "|>", TokenKind::kControl);
  AddToken(vocabulary, "\n\n", TokenKind::kUserDefined);
  AddToken(vocabulary, "<|a|", TokenKind::kUserDefined);
}

Subject MakeBpe(const std::string& pre) {
  TestVocabulary vocabulary = mnemo::model::ByteVocabulary();
  vocabulary.pre = pre;
  // U+0120 is a blank and U+010A a line feed in the byte alphabet.
  for (const auto& [left, right] :
       std::vector<std::pair<std::string, std::string>>{{"a", "a"},
                                                        {"aa", "aa"},
                                                        {"\xC4\xA0", "a"},
                                                        {"\xC4\xA0", "\xC4\xA0"},
                                                        {"\xC4\x8A", "\xC4\x8A"},
                                                        {"'", "s"},
                                                        {"1", "1"},
                                                        {"|", ">"},
                                                        {"\xC3\xA2", "\xC4\xA0"}}) {
    vocabulary.merges.push_back(left + " " + right);
    AddToken(&vocabulary, left + right, TokenKind::kNormal);
  }
  AddControl(&vocabulary);
  return {std::move(mnemo::model::MakeTokenizer(vocabulary)).value(), pre == "qwen2", false};
}

Subject MakeSentencePiece(bool add_space_prefix, bool unused) {
  TestVocabulary vocabulary =
      mnemo::model::SentencePieceVocabulary({std::string(kBlankMark), "a", "aa", "aaa",
                                             "\xE2\x96\x81"
                                             "a",
                                             "\xE2\x96\x81\xE2\x96\x81", "1", "11", "|", "|>"});
  vocabulary.add_space_prefix = add_space_prefix;
  if (unused)
    vocabulary.kinds[static_cast<size_t>(AddToken(&vocabulary, "1a", TokenKind::kNormal))] =
        TokenKind::kUnused;
  AddControl(&vocabulary);
  return {std::move(mnemo::model::MakeTokenizer(vocabulary)).value(), false, true};
}

const std::vector<Subject>& Subjects() {
  static const std::vector<Subject> subjects = [] {
    std::vector<Subject> made;
    for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) made.push_back(MakeBpe(pre));
    made.push_back(MakeSentencePiece(true, false));
    made.push_back(MakeSentencePiece(false, false));
    made.push_back(MakeSentencePiece(false, true));
    return made;
  }();
  return subjects;
}

std::string Expected(const Subject& subject, std::string_view text) {
  if (subject.normalizes) return mnemo::model::Unicode::Get().Nfc(text);
  std::string expected(text);
  if (!subject.marks_blanks) return expected;
  for (size_t at = expected.find(kBlankMark); at != std::string::npos;
       at = expected.find(kBlankMark, at + 1)) {
    expected.replace(at, kBlankMark.size(), " ");
  }
  return expected;
}

void CheckStream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool include_special) {
  mnemo::model::TextStream stream(tokenizer, include_special,
                                  {"\xF0\x9F\x98\x80\xF0\x9F\x98\x80\xF0\x9F\x98\x80", "<<<<"});
  std::string text;
  for (const int32_t id : ids) {
    const mnemo::model::TextStream::Result result = stream.Append(id);
    MNEMO_CHECK(mnemo::model::IsValidUtf8(result.text));
    text += result.text;
    if (result.stopped) {
      MNEMO_CHECK(tokenizer.Decode(ids, !include_special).starts_with(text + result.stop_matched));
      return;
    }
  }
  text += stream.Finish().text;
  MNEMO_CHECK(text == tokenizer.Decode(ids, !include_special));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const Subject& subject = Subjects()[data[0] % Subjects().size()];
  const Tokenizer& tokenizer = *subject.tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data) + 4, size - 4);
  const size_t begin = std::min<size_t>(data[2], text.size());
  const std::array<ByteRange, 1> literal = {{{begin, std::min<size_t>(begin + data[3], text.size())}}};
  EncodeOptions options;
  options.parse_special = (data[1] & 1) != 0;
  if ((data[1] & 2) != 0) options.literal = literal;

  const std::vector<int32_t> ids = tokenizer.Encode(text, options);
  for (const int32_t id : ids) MNEMO_CHECK(id >= 0 && id < tokenizer.size());
  CheckStream(tokenizer, ids, (data[1] & 4) != 0);
  const std::string decoded = tokenizer.DecodeBytes(ids, false);
  if (!options.parse_special) {
    MNEMO_CHECK(decoded == Expected(subject, text));
    for (const int32_t id : ids) MNEMO_CHECK(!tokenizer.IsControl(id));
    MNEMO_CHECK(tokenizer.Encode(decoded, options) == ids);
    return 0;
  }
  // The tokens' places in the text are known when every byte is kept.
  if (tokenizer.strips_leading_space() || decoded != text) return 0;
  size_t at = 0;
  for (const int32_t id : ids) {
    const size_t end = at + tokenizer.Piece(id).size();
    const bool touches = !options.literal.empty() && at < literal[0].end && end > literal[0].begin &&
                         literal[0].begin < literal[0].end;
    MNEMO_CHECK(!tokenizer.IsControl(id) || !touches);
    at = end;
  }
  return 0;
}
