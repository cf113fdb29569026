#include "server/frontend/output_builder.h"

#include <catch2/catch.hpp>

#include "server/frontend/testing/tiny_served_model.h"

namespace mnemo::frontend {
namespace {

using internal::v1::Event;
using testing::Ids;
using testing::kEndId;

const ServedModel& Model() {
  static const auto* model = testing::LoadTiny().release();
  return *model;
}

Event TokensAt(int first, const std::vector<int32_t>& ids) {
  Event event;
  event.set_first_index(first);
  event.mutable_token_ids()->Add(ids.begin(), ids.end());
  return event;
}

struct Collected {
  std::string text;
  std::vector<int32_t> ids;
  int messages = 0;
};

Collected Drain(ResponseQueue* queue) {
  Collected all;
  while (!queue->empty()) {
    v1::GenerateResponse message;
    queue->Pop(&message);
    CHECK(message.ByteSizeLong() <= (1 << 20));
    CHECK(model::IsValidUtf8(message.delta().text()));
    ++all.messages;
    all.text += message.delta().text();
    for (const v1::Token& token : message.delta().tokens()) all.ids.push_back(token.id());
  }
  CHECK(queue->waiting_tokens() == 0);
  return all;
}

// Feeds the bytes one token an event.
Collected Feed(OutputBuilder* builder, const std::vector<int32_t>& ids) {
  ResponseQueue queue;
  for (size_t i = 0; i < ids.size() && !builder->is_finished(); ++i) {
    CHECK(builder->Add(TokensAt(static_cast<int>(i), {ids[i]}), &queue).ok());
  }
  return Drain(&queue);
}

TEST_CASE("a stop string over several tokens cuts the text and keeps the tokens") {
  TextSettings text;
  text.stop = {"xyz", "lo w"};
  OutputBuilder builder(Model(), text, {});
  const Collected all = Feed(&builder, Ids("hello world"));
  CHECK(all.text == "hel");
  CHECK(all.ids == Ids("hello w"));
  CHECK(builder.reason() == v1::FINISH_REASON_STOP);
  CHECK(builder.stop_matched() == "lo w");
  CHECK(builder.completion_tokens() == 7);
}

TEST_CASE("what was held back for a stop string comes at the end") {
  TextSettings text;
  text.stop = {"abcd"};
  OutputBuilder builder(Model(), text, {});
  ResponseQueue queue;
  CHECK(builder.Add(TokensAt(0, Ids("xabc")), &queue).ok());
  CHECK(Drain(&queue).text == "x");
  Event last;
  last.mutable_finish()->set_reason(internal::v1::Finish::REASON_LENGTH);
  CHECK(builder.Add(last, &queue).ok());
  CHECK(builder.reason() == v1::FINISH_REASON_LENGTH);
  const Collected rest = Drain(&queue);
  CHECK(rest.text == "abc");
  CHECK(rest.ids.empty());
}

TEST_CASE("malformed bytes become U+FFFD and characters stay whole") {
  OutputBuilder builder(Model(), {}, {});
  ResponseQueue queue;
  // The first half of a two-byte character, alone in its Delta.
  CHECK(builder.Add(TokensAt(0, {0xC3}), &queue).ok());
  CHECK(Drain(&queue).text.empty());
  CHECK(builder.Add(TokensAt(1, {0xA9, 0xFF, 'a'}), &queue).ok());
  CHECK(Drain(&queue).text ==
        "\xC3\xA9\xEF\xBF\xBD"
        "a");
}

TEST_CASE("end tokens and stop tokens") {
  SECTION("an end token is reported and makes no text") {
    OutputBuilder builder(Model(), {}, {});
    const Collected all = Feed(&builder, {'a', kEndId, 'b'});
    CHECK(all.ids == std::vector<int32_t>{'a', kEndId});
    CHECK(all.text == "a");
    CHECK(builder.reason() == v1::FINISH_REASON_EOS);
  }
  SECTION("it makes text when asked for") {
    TextSettings text;
    text.include_special_tokens = true;
    OutputBuilder builder(Model(), text, {});
    CHECK(Feed(&builder, {'a', kEndId}).text == "a<|im_end|>");
  }
  SECTION("ignored, it is a token like others, unless it is a stop token, too") {
    TextSettings text;
    text.ignore_eos = true;
    OutputBuilder goes_on(Model(), text, {});
    CHECK(Feed(&goes_on, {'a', kEndId, 'b'}).ids.size() == 3);
    CHECK_FALSE(goes_on.is_finished());
    text.stop_token_ids = {kEndId};
    OutputBuilder stops(Model(), text, {});
    CHECK(Feed(&stops, {'a', kEndId, 'b'}).ids.size() == 2);
    CHECK(stops.reason() == v1::FINISH_REASON_STOP);
  }
  SECTION("a stop token is part of the text") {
    TextSettings text;
    text.stop_token_ids = {'c'};
    OutputBuilder builder(Model(), text, {});
    CHECK(Feed(&builder, Ids("abcd")).text == "abc");
    CHECK(builder.reason() == v1::FINISH_REASON_STOP);
    CHECK(builder.stop_matched().empty());
  }
}

TEST_CASE("deltas merge, but no message grows past what clients take") {
  OutputBuilder builder(Model(), {}, {});
  ResponseQueue queue;
  constexpr int kTokens = 20000;
  for (int i = 0; i < kTokens; ++i) {
    Event event = TokensAt(i, {'a'});
    internal::v1::TokenDetail* detail = event.add_details();
    detail->set_has_logprob(true);
    detail->set_logprob(-1);
    for (int k = 0; k < 20; ++k) {
      detail->add_alternative_ids(k);
      detail->add_alternative_logprobs(-1.0f - static_cast<float>(k));
    }
    REQUIRE(builder.Add(event, &queue).ok());
  }
  CHECK(queue.waiting_tokens() == kTokens);
  const Collected all = Drain(&queue);
  CHECK(all.ids.size() == kTokens);
  CHECK(all.text == std::string(kTokens, 'a'));
  CHECK(all.messages > 1);
  CHECK(all.messages < 100);
}

TEST_CASE("prompt tokens come in messages of bounded size, and only once over a replay") {
  internal::v1::Submit submit;
  submit.set_prompt_logprobs_from(2);
  OutputBuilder builder(Model(), {}, submit);
  ResponseQueue queue;
  Event event;
  event.set_prompt_first(2);
  event.mutable_prompt_ids()->Add('c');
  event.mutable_prompt_ids()->Add('d');
  for (int i = 0; i < 2; ++i) {
    event.add_prompt_details()->set_has_logprob(true);
    event.mutable_prompt_details(i)->set_rank(i);
  }
  REQUIRE(builder.Add(event, &queue).ok());
  event.mutable_prompt_ids()->Add('e');
  event.add_prompt_details();
  REQUIRE(builder.Add(event, &queue).ok());
  v1::GenerateResponse message;
  queue.Pop(&message);
  CHECK(queue.empty());
  CHECK(message.prompt().start() == 2);
  REQUIRE(message.prompt().tokens_size() == 3);
  CHECK(message.prompt().tokens(0).piece() == "c");
  CHECK(message.prompt().tokens(1).rank() == 1);
  CHECK(message.prompt().tokens(2).id() == 'e');
  CHECK_FALSE(message.prompt().tokens(2).has_logprob());
}

TEST_CASE("a skipped or repeated index is an error of ours, not a silent gap") {
  OutputBuilder builder(Model(), {}, {});
  ResponseQueue queue;
  REQUIRE(builder.Add(TokensAt(0, {'a'}), &queue).ok());
  CHECK(builder.Add(TokensAt(2, {'b'}), &queue).code() == absl::StatusCode::kInternal);
  CHECK(builder.Add(TokensAt(0, {'a'}), &queue).code() == absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace mnemo::frontend
