// The life of a request, with a reader in memory and workers that are the test: no gRPC.
#include "server/frontend/request_core.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <random>
#include <thread>

#include "server/frontend/testing/request_world.h"
#include "tests/support/eventually.h"

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;
using internal::v1::Finish;
using mnemo::testing::Eventually;
using testing::Ids;
using testing::MemorySink;
using testing::Prompt;
using testing::RequestWorld;
using Words = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST_CASE("a request begins with Started, and ends with Final and OK") {
  RequestWorld world;
  v1::GenerateRequest request = Prompt();
  request.set_request_id("mine");
  const auto sink = world.Begin(request);
  REQUIRE(sink->kinds() == Words{"started"});
  CHECK(sink->last().started().request_id() == "mine");
  CHECK(sink->last().started().prompt_token_count() == 2);
  CHECK(sink->last().started().seed() == 17);
  const auto worker = world.dispatcher.Wait(0);
  REQUIRE(worker != nullptr);
  CHECK_FALSE(worker->deadline.has_value());
  CHECK(world.admission.counts() == AdmissionCounts{1, 0, 102});
  worker->Tokens(Ids("he"));
  CHECK(sink->text() == "he");
  worker->Finish(Ids("llo"), Finish::REASON_LENGTH, 3);
  CHECK(sink->status() == absl::OkStatus());
  CHECK(sink->text() == "hello");
  CHECK(sink->kinds() == Words{"started", "delta", "delta", "final"});
  const v1::Final final = sink->last().final();
  CHECK(final.finish_reason() == v1::FINISH_REASON_LENGTH);
  CHECK(final.replays() == 3);
  CHECK(final.usage().prompt_tokens() == 2);
  CHECK(final.usage().completion_tokens() == 5);
  CHECK(final.usage().cached_prompt_tokens() == 1);
  CHECK(world.admission.counts() == AdmissionCounts{});
  CHECK(world.streams.count() == 0);
  CHECK_THAT(world.metrics.Expose(), Contains("mnemo_generation_tokens_total 5"));
}

TEST_CASE("a request that is not valid is refused before admission") {
  RequestWorld world;
  v1::GenerateRequest request = Prompt();
  request.mutable_sampling()->set_temperature(-1);
  const auto sink = world.Begin(request);
  REQUIRE(sink->status().has_value());
  CHECK(sink->status()->code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(Message(*sink->status()), Contains("sampling.temperature"));
  CHECK(sink->messages().empty());
  CHECK_FALSE(sink->pushback_ms().has_value());
  CHECK(world.dispatcher.count() == 0);
  CHECK(world.streams.count() == 0);
  CHECK_THAT(world.metrics.Expose(), Contains("mnemo_requests_rejected_total{reason=\"invalid\"} 1"));
}

TEST_CASE("admission lets requests wait, and refuses what is too much") {
  RequestWorld world({.max_running = 1, .max_queued = 1, .max_tokens_in_flight = 1000});
  world.tunables.retry_pushback_ms = 77;
  const auto first = world.Begin();
  const auto second = world.Begin();
  CHECK(second->kinds() == Words{"started"});
  CHECK(world.dispatcher.count() == 1);
  const auto third = world.Begin();
  REQUIRE(third->status().has_value());
  CHECK(third->status()->code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(Message(*third->status()), Contains("limits.max_queued 1"));
  CHECK(third->pushback_ms() == 77);
  v1::GenerateRequest large = Prompt();
  large.mutable_sampling()->set_max_tokens(1000);
  const auto never = world.Begin(large);
  CHECK(never->pushback_ms() == -1);
  world.dispatcher.Wait(0)->Finish({}, Finish::REASON_LENGTH);
  CHECK(first->status() == absl::OkStatus());
  REQUIRE(world.dispatcher.count() == 2);
  world.dispatcher.Wait(1)->Finish({}, Finish::REASON_LENGTH);
  CHECK(second->status() == absl::OkStatus());
}

TEST_CASE("a stop string ends the request, and its worker") {
  RequestWorld world;
  v1::GenerateRequest request = Prompt();
  request.mutable_sampling()->add_stop("lo w");
  const auto sink = world.Begin(request);
  const auto worker = world.dispatcher.Wait(0);
  for (const int32_t id : Ids("hello world")) worker->Tokens({id});
  CHECK(worker->is_cancelled());
  CHECK(sink->status() == absl::OkStatus());
  CHECK(sink->text() == "hel");
  CHECK(sink->last().final().stop_matched() == "lo w");
  CHECK(sink->last().final().finish_reason() == v1::FINISH_REASON_STOP);
}

TEST_CASE("tokens merge while the reader takes nothing") {
  RequestWorld world;
  const auto sink = std::make_shared<MemorySink>(false);
  world.Begin(sink);
  const auto worker = world.dispatcher.Wait(0);
  for (const int32_t id : Ids("hello")) worker->Tokens({id});
  worker->Finish({}, Finish::REASON_LENGTH);
  CHECK(sink->messages().empty());
  // The worker has ended, and so has its place; the stream has not.
  CHECK(world.admission.counts() == AdmissionCounts{});
  CHECK(world.streams.count() == 1);
  while (sink->Take()) {
  }
  CHECK(sink->kinds() == Words{"started", "delta", "final"});
  CHECK(sink->text() == "hello");
  CHECK(world.streams.count() == 0);
}

TEST_CASE("a reader that takes nothing is broken off") {
  RequestWorld world;
  const auto sink = std::make_shared<MemorySink>(false);
  std::string bound;
  SECTION("by the count of waiting tokens") {
    world.tunables.slow_reader_max_tokens = 5;
    world.Begin(sink);
    const auto worker = world.dispatcher.Wait(0);
    worker->Tokens(Ids("hello"));
    CHECK_FALSE(sink->is_aborted());
    worker->Tokens(Ids("!"));
    bound = "server.slow_reader_max_tokens";
  }
  SECTION("by the time of a write") {
    world.Begin(sink);
    const auto core = sink->Core();
    core->Sweep(Clock::now());
    CHECK_FALSE(sink->is_aborted());
    core->Sweep(Clock::now() + std::chrono::hours(1));
    bound = "server.slow_reader_timeout_ms";
  }
  CHECK(sink->is_aborted());
  CHECK(world.dispatcher.Wait(0)->is_cancelled());
  CHECK(world.admission.counts() == AdmissionCounts{});
  sink->Leave();
  REQUIRE(sink->status().has_value());
  CHECK(sink->status()->code() == absl::StatusCode::kCancelled);
  CHECK_THAT(Message(*sink->status()), Contains(bound));
  CHECK(sink->messages().empty());
  CHECK(world.streams.count() == 0);
}

TEST_CASE("a client may leave at any time") {
  RequestWorld world({.max_running = 1});
  SECTION("while its prompt waits to be tokenized") {
    std::promise<void> go;
    REQUIRE(world.text_pool.Run([&] { go.get_future().wait(); }));
    const auto sink = world.Begin(Prompt(std::string(TextPool::kLongTextBytes + 1, 'x')));
    sink->Leave();
    CHECK_FALSE(sink->status().has_value());
    go.set_value();
    REQUIRE(Eventually([&] { return sink->status().has_value(); }));
    CHECK(sink->status()->code() == absl::StatusCode::kCancelled);
    CHECK(world.dispatcher.count() == 0);
  }
  SECTION("while it is queued") {
    const auto first = world.Begin();
    const auto second = world.Begin();
    CHECK(world.admission.counts().queued == 1);
    second->Leave();
    CHECK(second->status()->code() == absl::StatusCode::kCancelled);
    CHECK(world.admission.counts().queued == 0);
    world.dispatcher.Wait(0)->Finish({}, Finish::REASON_LENGTH);
    CHECK(world.dispatcher.count() == 1);
  }
  SECTION("while it runs") {
    const auto sink = world.Begin();
    world.dispatcher.Wait(0)->Tokens(Ids("a"));
    sink->Leave();
    CHECK(world.dispatcher.Wait(0)->is_cancelled());
    CHECK(sink->status()->code() == absl::StatusCode::kCancelled);
    CHECK_THAT(Message(*sink->status()), Contains("cancelled by the client"));
  }
  SECTION("past its deadline") {
    const auto sink = std::make_shared<MemorySink>();
    world.Begin(sink, Prompt(), std::chrono::nanoseconds(1));
    CHECK(world.dispatcher.Wait(0)->deadline.has_value());
    sink->Leave();
    CHECK(sink->status()->code() == absl::StatusCode::kDeadlineExceeded);
  }
  SECTION("when all is said") {
    const auto sink = std::make_shared<MemorySink>(false);
    world.Begin(sink);
    world.dispatcher.Wait(0)->Finish(Ids("a"), Finish::REASON_LENGTH);
    sink->Leave();
    CHECK(sink->status() == absl::OkStatus());
    CHECK_FALSE(world.dispatcher.Wait(0)->is_cancelled());
  }
  CHECK(world.admission.counts() == AdmissionCounts{});
  CHECK(Eventually([&] { return world.streams.count() == 0; }));
}

TEST_CASE("a worker's failure is the request's") {
  RequestWorld world;
  world.tunables.retry_pushback_ms = 77;
  const auto sink = world.Begin();
  const auto worker = world.dispatcher.Wait(0);
  worker->Tokens(Ids("ab"));
  SECTION("with its status") {
    worker->Done(absl::InternalError("two workers died"), 1);
    CHECK(sink->status() == absl::InternalError("two workers died"));
    CHECK_FALSE(sink->pushback_ms().has_value());
  }
  SECTION("with a pause when it has no room") {
    worker->Done(absl::ResourceExhaustedError("no pages"));
    CHECK(sink->status()->code() == absl::StatusCode::kResourceExhausted);
    CHECK(sink->pushback_ms() == 77);
  }
  SECTION("also when it gives no reason") {
    worker->Done(absl::OkStatus());
    CHECK(sink->status()->code() == absl::StatusCode::kInternal);
  }
  SECTION("also when it skips a token") {
    internal::v1::Event event;
    event.set_first_index(5);
    event.add_token_ids('a');
    worker->Send(event);
    CHECK(worker->is_cancelled());
    CHECK(sink->status()->code() == absl::StatusCode::kInternal);
  }
  CHECK(sink->text() == "ab");
  CHECK(world.admission.counts() == AdmissionCounts{});
}

TEST_CASE("a drain refuses what comes, and cuts what stays") {
  RequestWorld world;
  const auto stays = world.Begin();
  world.admission.SetDraining(true);
  const auto refused = world.Begin();
  CHECK(refused->status()->code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(world.metrics.Expose(), Contains("mnemo_requests_rejected_total{reason=\"draining\"} 1"));
  std::promise<DrainResult> drained;
  world.streams.Drain(Clock::now(), [&](DrainResult result) { drained.set_value(result); });
  CHECK(drained.get_future().get().cut == 1);
  CHECK(stays->status()->code() == absl::StatusCode::kUnavailable);
  CHECK(world.dispatcher.Wait(0)->is_cancelled());
  CHECK_FALSE(stays->is_aborted());
}

TEST_CASE("tokens, a reader and a client that leaves meet in any order") {
  const auto seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  RequestWorld world;
  for (size_t round = 0; round < 200; ++round) {
    const auto sink = std::make_shared<MemorySink>(false);
    world.Begin(sink);
    const auto worker = world.dispatcher.Wait(round);
    REQUIRE(worker != nullptr);
    // All three begin at once; the client leaves after some of the tokens.
    const unsigned leaves_after = random() % 20;
    std::atomic<unsigned> sent = 0;
    std::thread tokens([&] {
      for (int i = 0; i < 20; ++i) {
        worker->Tokens({'a'});
        ++sent;
        std::this_thread::yield();
      }
      worker->Finish({}, Finish::REASON_LENGTH);
    });
    std::thread reader([&] {
      while (!sink->status().has_value()) {
        sink->Take();
        std::this_thread::yield();
      }
    });
    while (sent < leaves_after) std::this_thread::yield();
    if (round % 2 == 0) sink->Leave();
    tokens.join();
    reader.join();
    if (round % 2 == 1) CHECK(sink->text() == std::string(20, 'a'));
  }
  CHECK(world.admission.counts() == AdmissionCounts{});
  CHECK(world.streams.count() == 0);
}

}  // namespace
}  // namespace mnemo::frontend
