#include "server/model/text_stream.h"

#include <catch2/catch.hpp>
#include <memory>
#include <random>

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

// All texts of a stream joined, with what stopped it.
struct Streamed {
  std::string text;
  std::string matched;
};
Streamed Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, std::vector<std::string> stop,
                bool include_special = false) {
  TextStream stream(tokenizer, include_special, std::move(stop));
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

TEST_CASE("stop matching does not depend on how the text comes, against a plain search") {
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

}  // namespace
}  // namespace mnemo::model
