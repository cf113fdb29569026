#include "server/model/text_stream.h"

#include <catch2/catch.hpp>
#include <memory>
#include <random>

#include "server/model/vocabulary_files.h"
#include "tests/support/tiny_model.h"

namespace mnemo::model {
namespace {

std::unique_ptr<Tokenizer> ByteTokenizer() {
  static const std::vector<std::byte> image = testing::TinyModel({});
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Parse(image, "tiny.gguf", {});
  REQUIRE(file.ok());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(**file);
  REQUIRE(tokenizer.ok());
  return std::move(tokenizer).value();
}

std::string Valid(std::string_view bytes) {
  std::string text;
  CHECK(AppendValidUtf8(bytes, true, &text) == bytes.size());
  return text;
}

// All texts of a stream joined, with the stop string that ended it.
struct Streamed {
  std::string text;
  std::string matched;
};
Streamed Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, std::vector<std::string> stop,
                bool include_special = false, const std::vector<int32_t>& prompt = {}) {
  TextStream stream(tokenizer, include_special, std::move(stop), prompt);
  Streamed streamed;
  for (const int32_t id : ids) {
    const TextStream::Result result = stream.Append(id);
    CHECK(IsValidUtf8(result.text));
    streamed.text += result.text;
    streamed.matched = result.stop_matched;
    if (result.stopped) return streamed;
  }
  const TextStream::Result result = stream.Finish();
  streamed.text += result.text;
  streamed.matched = result.stop_matched;
  return streamed;
}

TEST_CASE("malformed bytes become one U+FFFD a maximal subpart") {
  // The Unicode standard, tables 3-8 to 3-11.
  const std::string r = "\xEF\xBF\xBD";
  CHECK(Valid("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(Valid("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(Valid("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r + r + r + r + r + "A" + r + r + "B");
  CHECK(Valid("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
  CHECK(Valid("plain ascii text, longer than a word \xC3\xA9\xF0\x9F\x98\x80") ==
        "plain ascii text, longer than a word \xC3\xA9\xF0\x9F\x98\x80");
}

TEST_CASE("an incomplete character at the end waits until the end is final") {
  for (const std::string_view whole : {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
    for (size_t length = 1; length < whole.size(); ++length) {
      std::string text;
      CHECK(AppendValidUtf8(whole.substr(0, length), false, &text) == 0);
      CHECK(text.empty());
      CHECK(AppendValidUtf8(whole.substr(0, length), true, &text) == length);
      CHECK(text == "\xEF\xBF\xBD");
    }
  }
}

TEST_CASE("a stream gives the text of Decode, whatever the bytes") {
  const std::unique_ptr<Tokenizer> tokenizer = ByteTokenizer();
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids(random() % 24);
    for (int32_t& id : ids) {
      // Mostly lead and continuation bytes, with control tokens in between.
      id = static_cast<int32_t>(random() % 8 == 0 ? random() % testing::kTinyVocabulary
                                                  : 0x80 + random() % 0x80);
    }
    const bool special = round % 2 == 0;
    INFO("round " << round);
    CHECK(Stream(*tokenizer, ids, {}, special).text == tokenizer->Decode(ids, !special));
  }
}

TEST_CASE("a stop match cuts the text in front of it") {
  const std::unique_ptr<Tokenizer> tokenizer = ByteTokenizer();
  const auto run = [&](std::string_view text, std::vector<std::string> stop) {
    return Stream(*tokenizer, tokenizer->Encode(text, {}), std::move(stop));
  };
  CHECK(run("one two three", {"two"}).text == "one ");
  CHECK(run("one two three", {"two"}).matched == "two");
  CHECK(run("one two three", {"four", "threes"}).text == "one two three");
  CHECK(run("one two three", {"four", "threes"}).matched.empty());
  CHECK(run("aab", {"ab"}).text == "a");
  CHECK(run("end\xE2\x82\xAC.", {"\xE2\x82\xAC"}).text == "end");
  SECTION("what is complete first counts, and of those the longest") {
    CHECK(run("xabcd", {"abcd", "bc"}).matched == "bc");
    CHECK(run("xabc", {"bc", "abc"}).matched == "abc");
    CHECK(run("xabc", {"bc", "abc"}).text == "x");
  }
}

TEST_CASE("text that may begin a stop match is held back, no more than that") {
  const std::unique_ptr<Tokenizer> tokenizer = ByteTokenizer();
  TextStream stream(*tokenizer, false, {"\n\nUser"});
  std::string seen;
  for (const int32_t id : tokenizer->Encode("hi\n\nUs", {})) seen += stream.Append(id).text;
  CHECK(seen == "hi");
  seen += stream.Append(tokenizer->Encode("a", {})[0]).text;
  CHECK(seen == "hi\n\nUsa");
  CHECK(stream.Finish().text.empty());
}

TEST_CASE("stop matching does not depend on how the text is cut, compared with a plain search") {
  const std::unique_ptr<Tokenizer> tokenizer = ByteTokenizer();
  std::mt19937 random(11);
  const auto word = [&](size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::string text = word(20);
    const std::vector<std::string> stop = {word(5), word(5), word(5)};
    size_t end = std::string::npos;
    size_t begin = std::string::npos;
    for (const std::string& s : stop) {
      const size_t at = text.find(s);
      if (at == std::string::npos) continue;
      if (at + s.size() < end || (at + s.size() == end && at < begin)) {
        begin = at;
        end = at + s.size();
      }
    }
    INFO(text << " stops: " << stop[0] << " " << stop[1] << " " << stop[2]);
    const Streamed streamed = Stream(*tokenizer, tokenizer->Encode(text, {}), stop);
    CHECK(streamed.text == text.substr(0, begin));
    CHECK(streamed.matched == (end == std::string::npos ? "" : text.substr(begin, end - begin)));
  }
}

std::unique_ptr<Tokenizer> SentencePieceTokenizer() {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      MakeTokenizer(SentencePieceVocabulary({"\u2581", "a", "b", "\u2581a", "\u2581b", "\u00e9"}));
  REQUIRE(tokenizer.ok());
  return std::move(tokenizer).value();
}

TEST_CASE("after a prompt the text continues, and its first blank is no start of a text") {
  const std::unique_ptr<Tokenizer> tokenizer = SentencePieceTokenizer();
  constexpr int32_t kBlank = 259, kA = 260, kBlankA = 262, kBlankB = 263, kBos = 1;
  const auto behind = [&](const std::vector<int32_t>& prompt, const std::vector<int32_t>& ids,
                          bool include_special = false) {
    return Stream(*tokenizer, ids, {}, include_special, prompt).text;
  };
  CHECK(behind({kBlankA}, {kBlankB}) == " b");
  CHECK(behind({kA}, {kBlankB, kA}) == " ba");
  CHECK(behind({}, {kBlankB, kBlankB}) == "b b");
  CHECK(behind({kBos}, {kBlankB}) == "b");         // nothing visible yet
  CHECK(behind({kBos}, {kBlankB}, true) == " b");  // "<s>" is
  CHECK(behind({kBlankA, kBos}, {kBlankB}) == " b");
  CHECK(behind({kBlank}, {kBlankB}) == " b");  // the removed blank is the prompt's
  CHECK(behind({kBlankA, 999999, -1}, {kBlankB}) == " b");
  CHECK(behind({999999}, {kBlankB}) == "b");
}

TEST_CASE("a character that begins in the prompt is returned as a whole") {
  const std::unique_ptr<Tokenizer> tokenizer = SentencePieceTokenizer();
  const auto byte = [](int value) { return 3 + value; };
  const auto behind = [&](const std::vector<int32_t>& prompt, const std::vector<int32_t>& ids,
                          std::vector<std::string> stop = {}) {
    return Stream(*tokenizer, ids, std::move(stop), false, prompt);
  };
  CHECK(behind({byte(0xE2), byte(0x82)}, {byte(0xAC), 260}).text == "\u20aca");
  CHECK(behind({byte(0xE2), 1, byte(0x82)}, {byte(0xAC)}).text == "\u20ac");  // a control token between
  CHECK(behind({byte(0xF0)}, {byte(0x9F), byte(0x98), byte(0x80)}).text == "\U0001F600");
  CHECK(behind({byte(0xE2), byte(0x82)}, {260}).text == "a");  // U+FFFD is the prompt's text
  CHECK(behind({byte(0xE2)}, {byte(0x82)}).text.empty());
  CHECK(behind({byte(0xE2)}, {byte(0x82), 260}).text == "a");
  CHECK(behind({byte(0x82)}, {260}).text == "a");
  CHECK(behind({byte(0xE2), byte(0x82), byte(0xAC)}, {byte(0xAC)}).text == "\uFFFD");
  const Streamed stopped = behind({byte(0xE2), byte(0x82)}, {byte(0xAC), 260}, {"\u20ac"});
  CHECK((stopped.text.empty() && stopped.matched == "\u20ac"));
  // Stop strings are matched in the generated text only.
  CHECK(behind({260}, {263}, {"a b"}).text == " b");
  CHECK(behind({260}, {263}, {" b"}).matched == " b");
}

TEST_CASE("prompt and stream together equal the detokenised whole") {
  const std::unique_ptr<Tokenizer> tokenizer = SentencePieceTokenizer();
  std::mt19937 random(23);
  const auto draw = [&]() -> int32_t {
    constexpr uint8_t kBytes[] = {0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0x41};
    if (random() % 2 == 0) return 3 + kBytes[random() % std::size(kBytes)];
    return random() % 4 == 0 ? static_cast<int32_t>(random() % 3) : static_cast<int32_t>(259 + random() % 6);
  };
  for (int round = 0; round < 4000; ++round) {
    std::vector<int32_t> ids(1 + random() % 8);
    for (int32_t& id : ids) id = draw();
    const auto cut = ids.begin() + static_cast<ptrdiff_t>(random() % (ids.size() + 1));
    const std::vector<int32_t> prompt(ids.begin(), cut), rest(cut, ids.end());
    for (const bool include_special : {false, true}) {
      const std::string before = tokenizer->Decode(prompt, !include_special);
      const std::string both = tokenizer->Decode(ids, !include_special);
      // An incomplete character at the end of the prompt is U+FFFD there and may become another one.
      const size_t whole = both.starts_with(before) ? before.size() : before.size() - 3;
      INFO("round " << round << ", seed 23: " << both << " behind " << before);
      REQUIRE(both.substr(0, whole) == before.substr(0, whole));
      CHECK(Stream(*tokenizer, rest, {}, include_special, prompt).text == both.substr(whole));
    }
  }
}

}  // namespace
}  // namespace mnemo::model
