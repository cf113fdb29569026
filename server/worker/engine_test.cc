#include "server/worker/engine.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "server/worker/engine_fixture.h"

namespace mnemo::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

FixtureOptions Options() {
  FixtureOptions options;
  options.engine.max_batch_rows = 64;
  options.engine.max_running = 4;
  options.engine.max_waiting = 8;
  options.engine.kv_pages = 64;
  options.engine.reserve_tokens = 32;
  return options;
}

EngineRequest Request(uint64_t id, int prompt_length, int max_tokens, int first = 0) {
  EngineRequest request;
  request.id = id;
  for (int i = 0; i < prompt_length; ++i) request.prompt.push_back((first + i * 7) % 256);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace

TEST_CASE("the sink hears of pauses, not of steps of decoding") {
  EngineFixture fixture(Options());
  const EngineResult one = fixture.Run(Request(7, 100, 50));
  REQUIRE(one.pauses.size() == 50);
  CHECK(one.pauses.front() >= 3);  // idle, and two chunks of the prompt
  CHECK(one.pauses.back() == one.pauses.front());
  // The prompt of another request is computed between its tokens, in one chunk, unless this thread is late
  // and the request has ended before.
  REQUIRE(fixture.engine().Submit(Request(8, 10, 900)).ok());
  fixture.sink().WaitForTokens(8, 1);
  const EngineResult late = fixture.Run(Request(9, 20, 2, 1));
  const EngineResult early = fixture.sink().Wait(8);
  if (early.order > late.order) CHECK(early.pauses.back() == early.pauses.front() + 1);
}

TEST_CASE("tokens come one a step, with a summary at the first and at the last") {
  EngineFixture fixture(Options());
  const EngineResult result = fixture.Run(Request(7, 100, 10));
  CHECK(result.broken == "");
  REQUIRE(result.tokens.size() == 10);
  CHECK(result.tokens.front().index == 0);
  CHECK_FALSE(result.tokens.front().has_logprob);
  CHECK(result.prompt_tokens.empty());
  CHECK(result.last.finish == EngineFinish::kLength);
  CHECK(result.last.status.ok());
  CHECK(result.first.tokens.size() == 1);
  CHECK(result.first.prefill_time.count() > 0);
  CHECK(result.last.queue_time == result.first.queue_time);
  CHECK(result.last.prefill_time == result.first.prefill_time);
  CHECK(result.last.decode_time.count() > 0);
  CHECK(result.last.preemptions == 0);
  const EngineStats stats = fixture.engine().Stats();
  CHECK(stats.steps == 2 + 9);  // two chunks of the prompt
  CHECK(stats.running == 0);
  CHECK(stats.waiting == 0);
  CHECK(stats.kv_pages_used == 0);
  CHECK(stats.kv_pages_cached == 1);
  CHECK(stats.kv_pages_total == 64);
  CHECK(stats.prompt_tokens == 100);
  CHECK(stats.generated_tokens == 10);
  CHECK(stats.prefix_queries_tokens == 100);
  CHECK(stats.prefix_hit_tokens == 0);
  CHECK(fixture.Run(Request(8, 100, 1)).last.cached_prompt_tokens == 64);
}

TEST_CASE("an end token is the last one, and reported") {
  EngineFixture fixture(Options());
  const std::vector<int32_t> ids = fixture.Run(Request(1, 20, 20)).Ids();
  EngineRequest request = Request(2, 20, 20);
  request.end_ids = {300, ids[4]};
  const EngineResult result = fixture.Run(request);
  const auto first = std::find(ids.begin(), ids.end(), ids[4]);
  CHECK(result.Ids() == std::vector<int32_t>(ids.begin(), first + 1));
  CHECK(result.last.finish == EngineFinish::kEndToken);
}

TEST_CASE("the context's end is a length") {
  FixtureOptions options = Options();
  options.engine.context_tokens = 100;
  EngineFixture fixture(options);
  const EngineResult result = fixture.Run(Request(1, 95, 5));
  CHECK(result.tokens.size() == 5);
  CHECK(result.last.finish == EngineFinish::kLength);
  const absl::Status status = fixture.engine().Submit(Request(2, 95, 6));
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains("max_tokens is 6; allowed: 0 to 5"));
}

TEST_CASE("without a limit of the client's the pool's end is a length, also after preemption") {
  FixtureOptions options = Options();
  options.engine.kv_pages = 4;
  EngineFixture fixture(options);
  EngineRequest request = Request(1, 60, 940);
  CHECK(fixture.engine().Submit(request).code() == absl::StatusCode::kInvalidArgument);
  request.lower_to_pool = true;
  const EngineResult alone = fixture.Run(request);
  CHECK(alone.broken == "");
  CHECK(alone.tokens.size() == 4 * 64 - 60 + 1);
  CHECK(alone.last.finish == EngineFinish::kLength);
  CHECK(alone.first.max_tokens == static_cast<int32_t>(alone.tokens.size()));
  // Two of them do not fit together: the junior one gives up its pages and still gets as far.
  EngineRequest other = Request(3, 50, 950, 5);
  other.lower_to_pool = true;
  request.id = 2;
  REQUIRE(fixture.engine().Submit(request).ok());
  REQUIRE(fixture.engine().Submit(other).ok());
  CHECK(fixture.sink().Wait(2).Ids() == alone.Ids());
  const EngineResult junior = fixture.sink().Wait(3);
  CHECK(junior.tokens.size() == 4 * 64 - 50 + 1);
  CHECK(junior.last.finish == EngineFinish::kLength);
  CHECK(junior.last.preemptions > 0);
  // A replay ends where the first attempt would have.
  request.attempt = 1;
  const std::vector<int32_t> ids = alone.Ids();
  request.generated.assign(ids.begin(), ids.begin() + 150);
  CHECK(fixture.Run(request).Ids() == std::vector<int32_t>(ids.begin() + 150, ids.end()));
  CHECK(fixture.engine().Stats().kv_pages_used == 0);
}

TEST_CASE("scoring only") {
  EngineFixture fixture(Options());
  EngineRequest request = Request(1, 150, 0);
  request.prompt_logprobs = 2;
  SECTION("all of the prompt") {
    const EngineResult result = fixture.Run(request);
    CHECK(result.broken == "");
    REQUIRE(result.prompt_tokens.size() == 150);
    for (int i = 0; i < 150; ++i) {
      const EngineToken& token = result.prompt_tokens[i];
      CHECK(token.index == i);
      CHECK(token.id == request.prompt[i]);
      if (i == 0) continue;
      CHECK(token.detail.logprob < 0);
      CHECK(token.detail.alternative_count == 2);
      if (token.detail.rank == 0) CHECK(token.detail.alternative_ids[0] == token.id);
    }
    CHECK(result.tokens.empty());
    CHECK(result.last.finish == EngineFinish::kLength);
    CHECK(result.last.prefill_time.count() > 0);
    CHECK(result.last.decode_time.count() == 0);
  }
  SECTION("from a position on, the cache serves what is before") {
    const EngineResult all = fixture.Run(request);
    request.id = 2;
    request.prompt_logprobs_from = 70;
    const EngineResult result = fixture.Run(request);
    CHECK(result.last.cached_prompt_tokens == 64);
    REQUIRE(result.prompt_tokens.size() == 80);
    CHECK(result.prompt_tokens[0].index == 70);
    CHECK(result.prompt_tokens[0].detail.logprob == all.prompt_tokens[70].detail.logprob);
    request.id = 3;
    request.prompt_logprobs_from = 64;  // needs the logits of position 63
    CHECK(fixture.Run(request).last.cached_prompt_tokens == 0);
    request.id = 4;
    request.prompt_logprobs_from = 65;
    CHECK(fixture.Run(request).last.cached_prompt_tokens == 64);
  }
  SECTION("nothing wanted: the prompt goes into the cache") {
    request.prompt_logprobs = -1;
    const EngineResult result = fixture.Run(request);
    CHECK(result.tokens.empty());
    CHECK(result.prompt_tokens.empty());
    CHECK(result.last.finish == EngineFinish::kLength);
    CHECK(fixture.engine().Stats().kv_pages_cached == 2);
  }
  SECTION("a prompt of one token") {
    request.prompt = {5};
    const EngineResult result = fixture.Run(request);
    REQUIRE(result.prompt_tokens.size() == 1);
    CHECK_FALSE(result.prompt_tokens[0].has_logprob);
  }
}

TEST_CASE("scored prompt, then output") {
  EngineFixture fixture(Options());
  EngineRequest request = Request(1, 100, 4);
  request.prompt_logprobs = 0;
  request.logprobs = 5;
  const EngineResult result = fixture.Run(request);
  CHECK(result.broken == "");
  CHECK(result.prompt_tokens.size() == 100);
  REQUIRE(result.tokens.size() == 4);
  for (const EngineToken& token : result.tokens) {
    CHECK(token.has_logprob);
    CHECK(token.detail.rank == 0);  // greedy
    CHECK(token.detail.alternative_count == 5);
    CHECK(token.detail.alternative_ids[0] == token.id);
  }
}

TEST_CASE("sampling parameters reach the sampler") {
  EngineFixture fixture(Options());
  EngineRequest request = Request(1, 20, 12);
  const std::vector<int32_t> greedy = fixture.Run(request).Ids();
  SECTION("seed") {
    request.sampling.temperature = 5;
    std::vector<std::vector<int32_t>> results;
    for (const uint64_t seed : {1, 2, 1}) {
      ++request.id;
      request.sampling.seed = seed;
      results.push_back(fixture.Run(request).Ids());
    }
    CHECK(results[0] == results[2]);
    CHECK(results[0] != results[1]);
  }
  SECTION("bias") {
    request.id = 2;
    request.bias = {{42, 100}};
    CHECK(fixture.Run(request).Ids() == std::vector<int32_t>(12, 42));
  }
  SECTION("frequency in the output") {
    request.id = 2;
    request.bias = {{42, 100}, {43, 99}};
    request.sampling.frequency_penalty = 2;
    const std::vector<int32_t> ids = fixture.Run(request).Ids();
    CHECK(std::count(ids.begin(), ids.end(), 42) < 8);
    CHECK(std::count(ids.begin(), ids.end(), 43) > 4);
  }
  SECTION("repetition looks at the prompt too") {
    request.id = 2;
    request.prompt = {42, 1, 2};
    request.bias = {{42, 100}, {43, 60}};
    request.sampling.repetition_penalty = 2;
    request.max_tokens = 1;
    CHECK(fixture.Run(request).Ids() == std::vector<int32_t>{43});
  }
}

TEST_CASE("refusals name the field, or the bound of the queue") {
  FixtureOptions options = Options();
  options.engine.max_running = 1;
  options.engine.max_waiting = 2;
  options.engine.kv_pages = 10;
  EngineFixture fixture(options);
  Engine& engine = fixture.engine();
  CHECK(engine.Submit(Request(1, 0, 1)).code() == absl::StatusCode::kInvalidArgument);
  CHECK(engine.Submit(Request(1, 1025, 1)).code() == absl::StatusCode::kInvalidArgument);
  const absl::Status large = engine.Submit(Request(1, 600, 42));
  CHECK(large.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(large.message()), Catch::Contains("at most 640, the whole pool"));
  REQUIRE(engine.Submit(Request(1, 600, 41)).ok());  // just fits
  CHECK(engine.Submit(Request(1, 5, 5)).code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(engine.Submit(Request(2, 5, 5)).ok());
  REQUIRE(engine.Submit(Request(3, 5, 5)).ok());
  const absl::Status full = engine.Submit(Request(4, 5, 5));
  CHECK(full.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(full.message()), Catch::Contains("at most 3"));
  for (const uint64_t id : {1, 2, 3}) CHECK(fixture.sink().Wait(id).last.finish == EngineFinish::kLength);
  CHECK_FALSE(fixture.sink().Finished(4));
  CHECK(fixture.Run(Request(4, 5, 5)).last.finish == EngineFinish::kLength);
}

TEST_CASE("options out of range are refused by name and bound") {
  EngineFixture fixture(Options());
  const EngineOptions good = Options().engine;
  EngineOptions bad = good;
  std::string expected;
  SECTION("rows") { bad.max_batch_rows = 65, expected = "max_batch_rows is 65; allowed: 1 to 64"; }
  SECTION("sequences") { bad.max_running = 5, expected = "max_running is 5"; }
  SECTION("waiting") { bad.max_waiting = -1, expected = "max_waiting is -1; allowed: 0"; }
  SECTION("context") { bad.context_tokens = 1025, expected = "context_tokens is 1025; allowed: 0 to 1024"; }
  SECTION("pages") { bad.kv_pages = 0, expected = "kv_pages is 0; allowed: 1"; }
  SECTION("reserve") { bad.reserve_tokens = 0, expected = "reserve_tokens is 0; allowed: 1"; }
  SECTION("sessions") { bad.max_sessions = -1, expected = "max_sessions is -1; allowed: 0"; }
  const auto engine = fixture.Create(bad, &fixture.sink());
  REQUIRE_FALSE(engine.ok());
  CHECK(engine.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(engine.status().message()), Catch::Contains(expected));
}

TEST_CASE("cancellation ends a request and frees its pages") {
  FixtureOptions options = Options();
  options.engine.max_running = 1;
  EngineFixture fixture(options);
  Engine& engine = fixture.engine();
  REQUIRE(engine.Submit(Request(1, 100, 900)).ok());
  REQUIRE(engine.Submit(Request(2, 100, 900)).ok());
  fixture.sink().WaitForTokens(1, 3);
  engine.Cancel(2, 1);  // another attempt
  engine.Cancel(99, 0);
  engine.Cancel(2, 0);
  const EngineResult waiting = fixture.sink().Wait(2);
  CHECK(waiting.last.status.code() == absl::StatusCode::kCancelled);
  CHECK(waiting.last.queue_time.count() > 0);
  CHECK(waiting.tokens.empty());
  CHECK_FALSE(fixture.sink().Finished(1));
  engine.Cancel(1, 0);
  const EngineResult running = fixture.sink().Wait(1);
  CHECK(running.last.finish == EngineFinish::kError);
  CHECK(running.last.status.code() == absl::StatusCode::kCancelled);
  CHECK(running.tokens.size() >= 3);
  CHECK(engine.Stats().kv_pages_used == 0);
  CHECK(engine.Stats().running == 0);
  engine.Cancel(1, 0);  // finished: nothing happens
  CHECK(fixture.Run(Request(4, 5, 2)).tokens.size() == 2);
}

TEST_CASE("a deadline ends a request, running or waiting") {
  FixtureOptions options = Options();
  options.engine.max_running = 1;
  EngineFixture fixture(options);
  EngineRequest request = Request(1, 10, 1000);
  request.deadline = steady_clock::now() + milliseconds(5);
  EngineRequest behind = Request(2, 10, 1000);
  behind.deadline = steady_clock::now() + milliseconds(1);
  EngineRequest late = Request(3, 10, 10);
  late.deadline = steady_clock::now() - milliseconds(1);
  REQUIRE(fixture.engine().Submit(request).ok());
  REQUIRE(fixture.engine().Submit(behind).ok());
  REQUIRE(fixture.engine().Submit(late).ok());
  CHECK(fixture.sink().Wait(3).last.status.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(fixture.sink().Wait(2).last.status.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(fixture.sink().Wait(1).last.status.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(fixture.engine().Stats().kv_pages_used == 0);
}

TEST_CASE("replay goes on where it was") {
  EngineFixture fixture(Options());
  EngineRequest request = Request(1, 70, 20);
  request.sampling.temperature = 2;
  request.sampling.seed = 77;
  request.sampling.frequency_penalty = 1;
  request.logprobs = 1;
  const EngineResult whole = fixture.Run(request);
  REQUIRE(whole.tokens.size() == 20);
  for (const size_t sent : {1, 7, 19, 20}) {
    CAPTURE(sent);
    EngineRequest replay = request;
    replay.attempt = static_cast<uint32_t>(sent);
    const std::vector<int32_t> ids = whole.Ids();
    replay.generated.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(sent));
    const EngineResult rest = fixture.Run(replay);
    CHECK(rest.broken == "");
    CHECK(rest.Ids() == std::vector<int32_t>(ids.begin() + static_cast<ptrdiff_t>(sent), ids.end()));
    if (!rest.tokens.empty()) CHECK(rest.tokens.front().index == static_cast<int32_t>(sent));
    CHECK(rest.last.finish == EngineFinish::kLength);
  }
}

TEST_CASE("priority decides who runs next") {
  FixtureOptions options = Options();
  options.engine.max_running = 1;
  EngineFixture fixture(options);
  {
    // The first request cannot end before the others are there.
    const auto held = fixture.sink().HoldSteps();
    REQUIRE(fixture.engine().Submit(Request(1, 10, 200)).ok());
    fixture.sink().WaitForTokens(1, 1);
    for (const int priority : {3, 1, 2}) {
      EngineRequest request = Request(10 + priority, 10, 2);
      request.priority = priority;
      REQUIRE(fixture.engine().Submit(request).ok());
    }
  }
  const int64_t first = fixture.sink().Wait(11).order;
  const int64_t second = fixture.sink().Wait(12).order;
  const int64_t third = fixture.sink().Wait(13).order;
  CHECK(fixture.sink().Wait(1).order < first);
  CHECK(first < second);
  CHECK(second < third);
}

TEST_CASE("a session finds its prefix again until it ends") {
  FixtureOptions options = Options();
  options.engine.kv_pages = 8;
  EngineFixture fixture(options);
  EngineRequest chat = Request(1, 130, 3);
  chat.session_id = "chat";
  fixture.Run(chat);
  uint64_t id = 2;
  const auto others = [&] {
    for (int i = 0; i < 5; ++i, ++id) fixture.Run(Request(id, 200, 2, 11 * static_cast<int>(id)));
  };
  others();
  chat.id = id++;
  CHECK(fixture.Run(chat).last.cached_prompt_tokens == 128);
  fixture.engine().EndSession("another");
  others();
  chat.id = id++;
  CHECK(fixture.Run(chat).last.cached_prompt_tokens == 128);
  fixture.engine().EndSession("chat");
  others();
  chat.id = id++;
  chat.session_id = "";
  CHECK(fixture.Run(chat).last.cached_prompt_tokens == 0);
}

TEST_CASE("what is there when the engine stops is cancelled") {
  EngineFixture fixture(Options());
  for (uint64_t id = 0; id < 8; ++id) {
    EngineRequest request = Request(id, 10, 1000);
    REQUIRE(fixture.engine().Submit(request).ok());
  }
  fixture.StopEngine();
  for (uint64_t id = 0; id < 8; ++id) {
    REQUIRE(fixture.sink().Finished(id));
    CHECK(fixture.sink().Wait(id).last.status.code() == absl::StatusCode::kCancelled);
  }
}

TEST_CASE("an idle engine shows that it is alive") {
  EngineFixture fixture(Options());
  const uint64_t before = fixture.progress().load();
  const auto limit = steady_clock::now() + std::chrono::seconds(60);
  while (fixture.progress().load() < before + 2 && steady_clock::now() < limit) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  CHECK(fixture.progress().load() >= before + 2);
}

}  // namespace mnemo::worker
