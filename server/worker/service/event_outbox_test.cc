#include "server/worker/service/event_outbox.h"

#include <catch2/catch.hpp>

namespace mnemo::worker_service {
namespace {

using internal::v1::Event;
using internal::v1::Events;
using internal::v1::Finish;

worker::EngineToken Token(int32_t index, int32_t id) {
  worker::EngineToken token;
  token.index = index;
  token.id = id;
  return token;
}

worker::EngineEvent Step(std::vector<worker::EngineToken> tokens) {
  worker::EngineEvent event;
  event.tokens = std::move(tokens);
  return event;
}

TEST_CASE("a step without a reader in the way is one event a request") {
  EventOutbox outbox;
  CHECK(outbox.empty());
  outbox.Add(Step({Token(0, 10)}), 1, 0);
  outbox.Add(Step({Token(5, 20)}), 2, 3);
  Events events;
  outbox.TakeInto(&events);
  CHECK(outbox.empty());
  CHECK(outbox.bytes() == 0);
  REQUIRE(events.events_size() == 2);
  CHECK(events.events(0).id() == 1);
  CHECK(events.events(0).token_ids(0) == 10);
  CHECK(events.events(0).has_summary());
  CHECK(events.events(1).attempt() == 3);
  CHECK(events.events(1).first_index() == 5);
  CHECK_FALSE(events.events(1).has_summary());
}

TEST_CASE("steps merge while nobody reads, in order and with nothing lost") {
  EventOutbox outbox;
  size_t bytes = 0;
  for (int32_t i = 0; i < 100; ++i) {
    worker::EngineEvent event = Step({Token(i, 1000 + i)});
    event.tokens[0].has_logprob = true;
    event.tokens[0].detail.logprob = -static_cast<float>(i);
    event.tokens[0].detail.alternative_count = 2;
    event.tokens[0].detail.alternative_ids = {i, i + 1};
    if (i == 99) {
      event.finish = worker::EngineFinish::kLength;
      event.preemptions = 4;
      event.memory_steps.push_back({.step = memory::MemoryStepKind::kRetrieval,
                                    .method = "token_topk",
                                    .device = "memory0",
                                    .time_ns = 5,
                                    .bytes = 6,
                                    .count = 7});
      event.memory_fallbacks = 1;
      event.memory_fallback_reason = "service_lost";
    }
    outbox.Add(event, 7, 1);
    CHECK(outbox.bytes() > bytes);
    bytes = outbox.bytes();
  }
  Events events;
  events.add_events()->add_token_ids(3);  // old content does not show up again
  outbox.TakeInto(&events);
  REQUIRE(events.events_size() == 1);
  const Event& event = events.events(0);
  CHECK(event.first_index() == 0);
  REQUIRE(event.token_ids_size() == 100);
  REQUIRE(event.details_size() == 100);
  for (int i = 0; i < 100; ++i) {
    CHECK(event.token_ids(i) == 1000 + i);
    CHECK(event.details(i).logprob() == -static_cast<float>(i));
    CHECK(event.details(i).alternative_ids(1) == i + 1);
  }
  CHECK(event.finish().reason() == Finish::REASON_LENGTH);
  CHECK(event.summary().preemptions() == 4);
  REQUIRE(event.summary().memory_steps_size() == 1);
  CHECK(event.summary().memory_steps(0).step() == 3);
  CHECK(event.summary().memory_steps(0).method() == "token_topk");
  CHECK(event.summary().memory_steps(0).device() == "memory0");
  CHECK(event.summary().memory_steps(0).time_ns() == 5);
  CHECK(event.summary().memory_steps(0).bytes_moved() == 6);
  CHECK(event.summary().memory_steps(0).count() == 7);
  CHECK(event.summary().memory_fallbacks() == 1);
  CHECK(event.summary().memory_fallback_reason() == "service_lost");
}

TEST_CASE("spans go with events, and alone make no event") {
  EventOutbox outbox;
  worker::EngineEvent event;
  event.spans.push_back({.step = attribution::EnergyStep::kPrefill,
                         .begin_ns = 100,
                         .end_ns = 350,
                         .work_ns = 200,
                         .bytes = 30,
                         .operations = 40});
  outbox.Add(event, 7, 2);
  CHECK_FALSE(outbox.empty());
  CHECK(outbox.bytes() > 0);
  event.tokens.push_back(Token(0, 1));
  event.spans[0].device = "memory0:cpu";
  outbox.Add(event, 7, 2);
  Events events;
  outbox.TakeInto(&events);
  CHECK(outbox.empty());
  CHECK(events.events_size() == 1);
  REQUIRE(events.spans_size() == 2);
  const internal::v1::Span& span = events.spans(0);
  CHECK(span.id() == 7);
  CHECK(span.attempt() == 2);
  CHECK(span.step() == 1);
  CHECK(span.device().empty());
  CHECK(span.begin_ns() == 100);
  CHECK(span.length_ns() == 250);
  CHECK(span.work_ns() == 200);
  CHECK(span.bytes() == 30);
  CHECK(span.operations() == 40);
  CHECK(events.spans(1).device() == "memory0:cpu");
}

TEST_CASE("attempts of one request do not merge") {
  EventOutbox outbox;
  outbox.Add(Step({Token(0, 1)}), 7, 0);
  outbox.Add(Step({Token(1, 2)}), 7, 1);
  outbox.Add(Step({Token(2, 3)}), 7, 1);
  Events events;
  outbox.TakeInto(&events);
  REQUIRE(events.events_size() == 2);
  CHECK(events.events(0).token_ids_size() == 1);
  CHECK(events.events(1).first_index() == 1);
  CHECK(events.events(1).token_ids_size() == 2);
}

TEST_CASE("scored prompt positions and errors are carried") {
  EventOutbox outbox;
  worker::EngineEvent event;
  event.prompt_tokens = {Token(3, 30), Token(4, 40)};
  outbox.Add(event, 9, 0);
  event.prompt_tokens = {Token(5, 50)};
  event.finish = worker::EngineFinish::kError;
  event.status = absl::InvalidArgumentError("prompt: 9 tokens; at most 5");
  outbox.Add(event, 9, 0);
  Events events;
  outbox.TakeInto(&events);
  REQUIRE(events.events_size() == 1);
  CHECK(events.events(0).prompt_first() == 3);
  CHECK(events.events(0).prompt_ids_size() == 3);
  CHECK(events.events(0).prompt_details_size() == 3);
  CHECK(events.events(0).finish().reason() == Finish::REASON_ERROR);
  CHECK(events.events(0).finish().status_code() == 3);
  CHECK(events.events(0).finish().status_message() == "prompt: 9 tokens; at most 5");
}

}  // namespace
}  // namespace mnemo::worker_service
