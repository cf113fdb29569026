// Passes between prepare and admit, and requests of several submissions.
#include "server/frontend/prompt_pass.h"

#include <catch2/catch.hpp>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "server/frontend/testing/request_world.h"

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;
using internal::v1::Finish;
using testing::Ids;
using testing::MemorySink;
using testing::Prompt;
using testing::RequestWorld;
using Words = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

// Keeps each request until the test gives it back.
class HeldPass final : public PromptPass {
 public:
  class Held final : public Call {
   public:
    Held(std::string text, PreparedRequest given, Done done)
        : prompt(std::move(text)), prepared(std::move(given)), done_(std::move(done)) {}
    void Cancel() override {
      {
        std::lock_guard lock(mutex_);
        was_cancelled_ = true;
      }
      Give(absl::CancelledError("the pass was cancelled"));
    }
    void Give(absl::StatusOr<PreparedRequest> result) {
      Done done;
      {
        std::lock_guard lock(mutex_);
        done = std::exchange(done_, nullptr);
      }
      if (done) done(std::move(result));
    }
    bool was_cancelled() const {
      std::lock_guard lock(mutex_);
      return was_cancelled_;
    }

    const std::string prompt;
    PreparedRequest prepared;

   private:
    mutable std::mutex mutex_;
    Done done_;
    bool was_cancelled_ = false;
  };

  std::shared_ptr<Call> Start(const v1::GenerateRequest& request, PreparedRequest prepared,
                              Done done) override {
    held = std::make_shared<Held>(request.prompt(), std::move(prepared), std::move(done));
    return held;
  }

  std::shared_ptr<Held> held;
};

// Changes each request before Start returns.
class QuickPass final : public PromptPass {
 public:
  using Change = std::function<absl::Status(PreparedRequest*)>;
  explicit QuickPass(Change change) : change_(std::move(change)) {}
  std::shared_ptr<Call> Start(const v1::GenerateRequest&, PreparedRequest prepared, Done done) override {
    const absl::Status status = change_(&prepared);
    if (status.ok()) {
      done(std::move(prepared));
    } else {
      done(status);
    }
    return nullptr;
  }

 private:
  const Change change_;
};

QuickPass Appends(const std::string& text) {
  return QuickPass([text](PreparedRequest* prepared) {
    const std::vector<int32_t> ids = Ids(text);
    prepared->submissions[0].submit.mutable_prompt()->Add(ids.begin(), ids.end());
    return absl::OkStatus();
  });
}

// Makes two submissions of one, with seeds of their own.
QuickPass Doubles() {
  return QuickPass([](PreparedRequest* prepared) {
    prepared->submissions.push_back(prepared->submissions[0]);
    prepared->submissions[1].submit.mutable_sampling()->set_seed(18);
    return absl::OkStatus();
  });
}

std::vector<int32_t> PromptOf(const internal::v1::Submit& submit) {
  return {submit.prompt().begin(), submit.prompt().end()};
}

TEST_CASE("a pass changes the prompt while the request waits for it") {
  RequestWorld world;
  HeldPass pass;
  world.context.passes = {&pass};
  const auto sink = world.Begin(Prompt("question"));
  REQUIRE(pass.held != nullptr);
  CHECK(pass.held->prompt == "question");
  // Nothing is said before its place is known, nor counted.
  CHECK(sink->messages().empty());
  CHECK(world.admission.counts() == AdmissionCounts{});
  CHECK(world.streams.count() == 1);
  std::thread([&] {
    PreparedRequest changed = std::move(pass.held->prepared);
    const std::vector<int32_t> ids = Ids("found; question");
    changed.submissions[0].submit.clear_prompt();
    changed.submissions[0].submit.mutable_prompt()->Add(ids.begin(), ids.end());
    pass.held->Give(std::move(changed));
  }).join();
  const auto worker = world.dispatcher.Wait(0);
  REQUIRE(worker != nullptr);
  CHECK(PromptOf(worker->submit) == Ids("found; question"));
  CHECK(sink->last().started().prompt_token_count() == 15);
  CHECK(world.admission.counts().tokens_in_flight == 115);
  worker->Finish(Ids("answer"), Finish::REASON_LENGTH);
  CHECK(sink->text() == "answer");
  CHECK(sink->last().final().usage().prompt_tokens() == 15);
}

TEST_CASE("passes run in their order") {
  RequestWorld world;
  QuickPass first = Appends("1");
  HeldPass second;
  QuickPass third = Appends("3");
  world.context.passes = {&first, &second, &third};
  const auto sink = world.Begin(Prompt("0"));
  REQUIRE(second.held != nullptr);
  CHECK(world.dispatcher.count() == 0);
  PreparedRequest changed = second.held->prepared;
  changed.submissions[0].submit.add_prompt('2');
  second.held->Give(std::move(changed));
  REQUIRE(world.dispatcher.count() == 1);
  CHECK(PromptOf(world.dispatcher.Wait(0)->submit) == Ids("0123"));
  world.dispatcher.Wait(0)->Finish({}, Finish::REASON_LENGTH);
  CHECK(sink->status() == absl::OkStatus());
}

TEST_CASE("a pass that fails ends the request, and those behind it do not run") {
  RequestWorld world;
  QuickPass fails([](PreparedRequest*) { return InvalidArgument("retrieval.collection: unknown"); });
  HeldPass behind;
  world.context.passes = {&fails, &behind};
  const auto sink = world.Begin();
  CHECK(sink->status() == absl::InvalidArgumentError("retrieval.collection: unknown"));
  CHECK(sink->messages().empty());
  CHECK(behind.held == nullptr);
  CHECK(world.dispatcher.count() == 0);
  CHECK(world.streams.count() == 0);
  CHECK_THAT(world.metrics.Expose(), Contains("mnemo_requests_rejected_total{reason=\"invalid\"} 1"));
}

TEST_CASE("a request that leaves during a pass cancels it") {
  RequestWorld world;
  HeldPass pass, behind;
  world.context.passes = {&pass, &behind};
  const auto sink = world.Begin();
  REQUIRE(pass.held != nullptr);
  SECTION("by its client") {
    sink->Leave();
    CHECK(sink->status() == absl::CancelledError("cancelled by the client"));
  }
  SECTION("by a drain") {
    std::promise<DrainResult> drained;
    world.streams.Drain(Clock::now(), [&](DrainResult result) { drained.set_value(result); });
    drained.get_future().wait();
    REQUIRE(sink->status().has_value());
    CHECK(sink->status()->code() == absl::StatusCode::kUnavailable);
    CHECK_THAT(world.metrics.Expose(), Contains("mnemo_requests_rejected_total{reason=\"draining\"} 1"));
  }
  CHECK(pass.held->was_cancelled());
  CHECK(behind.held == nullptr);
  CHECK(world.dispatcher.count() == 0);
  CHECK(world.streams.count() == 0);
}

TEST_CASE("a pass that is cancelled while it starts is told so") {
  RequestWorld world;
  const auto sink = std::make_shared<MemorySink>();
  HeldPass pass;
  QuickPass leaves([&](PreparedRequest*) {
    sink->Leave();
    return absl::OkStatus();
  });
  SECTION("between two passes: the second is not begun") {
    world.context.passes = {&leaves, &pass};
    world.Begin(sink);
    CHECK(pass.held == nullptr);
  }
  SECTION("in the last one") {
    world.context.passes = {&leaves};
    world.Begin(sink);
  }
  CHECK(sink->status() == absl::CancelledError("cancelled by the client"));
  CHECK(world.dispatcher.count() == 0);
}

TEST_CASE("what passes add must fit the context") {
  RequestWorld world;
  const int context = world.context.model->context_tokens;
  v1::GenerateRequest request = Prompt();
  SECTION("with the max_tokens of the client") {
    QuickPass pass = Appends(std::string(context - 50, 'x'));
    world.context.passes = {&pass};
    const auto sink = world.Begin(request);
    CHECK(sink->status()->code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(sink->status()->message()), Contains("sampling.max_tokens: 100"));
  }
  SECTION("alone") {
    QuickPass pass = Appends(std::string(context, 'x'));
    world.context.passes = {&pass};
    const auto sink = world.Begin(request);
    CHECK(sink->status()->code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(sink->status()->message()), Contains("longer than the context"));
  }
  SECTION("and a max_tokens that nobody named is lowered") {
    request.mutable_sampling()->clear_max_tokens();
    QuickPass pass = Appends(std::string(context - 50, 'x'));
    world.context.passes = {&pass};
    const auto sink = world.Begin(request);
    REQUIRE(world.dispatcher.count() == 1);
    CHECK(world.dispatcher.Wait(0)->submit.max_tokens() == 48);
    world.dispatcher.Wait(0)->Finish({}, Finish::REASON_LENGTH);
  }
  SECTION("and something must be left") {
    QuickPass pass([](PreparedRequest* prepared) {
      prepared->submissions[0].submit.clear_prompt();
      return absl::OkStatus();
    });
    world.context.passes = {&pass};
    CHECK(world.Begin(request)->status()->code() == absl::StatusCode::kInternal);
  }
  CHECK(world.admission.counts() == AdmissionCounts{});
}

TEST_CASE("a sink gets no more submissions than it can tell apart") {
  RequestWorld world;
  QuickPass pass = Doubles();
  world.context.passes = {&pass};
  const auto sink = world.Begin();
  CHECK(sink->status()->code() == absl::StatusCode::kInternal);
  CHECK_THAT(std::string(sink->status()->message()), Contains("2 submissions"));
  CHECK(world.dispatcher.count() == 0);
}

// A request of two submissions, both at workers.
struct Pair {
  explicit Pair(bool reads = true) : sink(std::make_shared<MemorySink>(reads, 2)) {
    world.context.passes = {&pass};
    world.Begin(sink);
    first = world.dispatcher.Wait(0);
    second = world.dispatcher.Wait(1);
    MNEMO_CHECK(second != nullptr);
  }
  RequestWorld world;
  QuickPass pass = Doubles();
  std::shared_ptr<MemorySink> sink;
  std::shared_ptr<testing::FakeDispatcher::Request> first, second;
};

TEST_CASE("the streams of two submissions are joined by their index") {
  Pair pair;
  CHECK(pair.first->submit.sampling().seed() == 17);
  CHECK(pair.second->submit.sampling().seed() == 18);
  CHECK(pair.world.admission.counts() == AdmissionCounts{1, 0, 204});
  pair.second->Tokens(Ids("wo"));
  pair.first->Tokens(Ids("hel"));
  pair.second->Finish(Ids("rld"), Finish::REASON_LENGTH);
  CHECK(pair.sink->last(1).has_final());
  CHECK_FALSE(pair.sink->status().has_value());
  CHECK(pair.world.admission.counts().running == 1);
  pair.first->Finish(Ids("lo"), Finish::REASON_LENGTH, 2);
  CHECK(pair.sink->status() == absl::OkStatus());
  CHECK(pair.sink->text(0) == "hello");
  CHECK(pair.sink->text(1) == "world");
  for (const int index : {0, 1}) {
    CHECK(pair.sink->kinds(index) == Words{"started", "delta", "delta", "final"});
    CHECK(pair.sink->last(index).final().usage().completion_tokens() == 5);
  }
  CHECK(pair.sink->last(0).final().replays() == 2);
  CHECK(pair.sink->last(1).final().replays() == 0);
  CHECK(pair.world.admission.counts() == AdmissionCounts{});
}

TEST_CASE("a slow reader gets the submissions in turn, and is bounded by the tokens of both") {
  Pair pair(false);
  pair.world.tunables.slow_reader_max_tokens = 4;
  for (int i = 0; i < 2; ++i) {
    pair.first->Tokens({'a'});
    pair.second->Tokens({'b'});
  }
  for (int i = 0; i < 4; ++i) CHECK(pair.sink->Take());
  std::vector<int> order;
  for (const auto& message : pair.sink->messages()) order.push_back(message.submission);
  CHECK(order == std::vector<int>{0, 1, 0, 1});
  CHECK(pair.sink->text(0) == "aa");
  for (int i = 0; i < 2; ++i) {
    pair.first->Tokens({'a'});
    pair.second->Tokens({'b'});
  }
  CHECK_FALSE(pair.sink->is_aborted());
  pair.first->Tokens({'a'});
  pair.second->Tokens({'b'});
  CHECK(pair.sink->is_aborted());
  CHECK(pair.first->is_cancelled());
  CHECK(pair.second->is_cancelled());
  pair.sink->Leave();
  CHECK(pair.sink->status()->code() == absl::StatusCode::kCancelled);
}

TEST_CASE("a request of two submissions ends as one") {
  Pair pair;
  pair.first->Tokens(Ids("a"));
  SECTION("when its client leaves") {
    pair.sink->Leave();
    CHECK(pair.first->is_cancelled());
    CHECK(pair.sink->status()->code() == absl::StatusCode::kCancelled);
  }
  SECTION("when one of them fails") {
    pair.first->Done(absl::UnavailableError("no worker"));
    CHECK(pair.sink->status() == absl::UnavailableError("no worker"));
    CHECK_FALSE(pair.sink->last(0).has_final());
  }
  SECTION("when one fails and the other is over") {
    pair.second->Finish({}, Finish::REASON_LENGTH);
    CHECK_FALSE(pair.sink->status().has_value());
    pair.first->Done(absl::UnavailableError("no worker"));
    CHECK(pair.sink->status() == absl::UnavailableError("no worker"));
    CHECK(pair.sink->last(1).has_final());
    CHECK_FALSE(pair.second->is_cancelled());
    CHECK(pair.world.admission.counts() == AdmissionCounts{});
    return;
  }
  CHECK(pair.second->is_cancelled());
  CHECK(pair.world.admission.counts() == AdmissionCounts{});
}

TEST_CASE("a request keeps its place until its last worker has let go") {
  Pair pair;
  pair.first->HoldCancel();
  pair.second->HoldCancel();
  pair.sink->Leave();
  CHECK(pair.sink->status()->code() == absl::StatusCode::kCancelled);
  CHECK(pair.world.admission.counts() == AdmissionCounts{1, 0, 204});
  pair.second->Done(absl::CancelledError("cancelled"));
  CHECK(pair.world.admission.counts() == AdmissionCounts{1, 0, 204});
  pair.first->Done(absl::CancelledError("cancelled"));
  CHECK(pair.world.admission.counts() == AdmissionCounts{});
}

}  // namespace
}  // namespace mnemo::frontend
