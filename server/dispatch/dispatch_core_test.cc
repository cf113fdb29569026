#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "server/dispatch/dispatch_fixture.h"

namespace mnemo::dispatch {
namespace {

using absl::StatusCode;
using internal::v1::Submit;
using testing::Count;
using testing::RecordingSink;
using testing::World;

using State = WorkerSnapshot::State;

TEST_CASE("a request runs from its start to its finish") {
  World world(1);
  CHECK(world.core->Workers()[0].state == State::kStarting);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  std::vector<Submit> submits = world.Submits(0);
  REQUIRE(submits.size() == 1);
  CHECK(submits[0].attempt() == 0);
  CHECK(submits[0].prompt_size() == 10);
  CHECK(submits[0].time_left_us() == 0);
  CHECK(world.core->Workers()[0].requests_running == 1);
  world.Send(0, World::Tokens(submits[0], 0, 2));
  CHECK(sink->ids() == Count(2));
  CHECK_FALSE(sink->done());
  world.Send(0, World::Tokens(submits[0], 2, 1, true));
  CHECK(sink->ids() == Count(3));
  CHECK(sink->finished());
  CHECK(sink->done());
  CHECK(sink->status().ok());
  CHECK(sink->replays() == 0);
  CHECK(sink->complaints().empty());
  CHECK(world.core->Workers()[0].requests_running == 0);
  handle->Cancel();  // too late to matter
  world.core->Tick();
  CHECK(world.host.link(0)->TakeSent().empty());
}

TEST_CASE("a request that leaves its length to the server takes what its worker's context leaves") {
  World world(1);
  world.MakeReady(0);  // takes 1,000 tokens
  const bool leaves_it = GENERATE(true, false);
  Submit submit;
  for (int i = 0; i < 10; ++i) submit.add_prompt(1);
  submit.set_max_tokens(5000);
  submit.set_lower_to_pool(leaves_it);
  const auto [handle, sink] = world.Start(submit, std::make_shared<RecordingSink>());
  const std::vector<Submit> submits = world.Submits(0);
  REQUIRE(submits.size() == 1);
  CHECK(submits[0].max_tokens() == (leaves_it ? 990 : 5000));
}

TEST_CASE("the session begins with Hello") {
  World world(1, true, [](CoreOptions& options) { options.event_interval_ms = 25; });
  world.core->OnListening(0, 1);
  world.core->Tick();
  const auto sent = world.host.link(0)->TakeSent();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].hello().event_interval_ms() == 25);
  CHECK(sent[0].hello().protocol() == 1);
  CHECK(sent[0].hello().heartbeat_interval_ms() == 100);
}

TEST_CASE("an observer hears of requests and of their spans over all attempts") {
  class Recorder : public WorkObserver {
   public:
    void OnRequestBegin(uint64_t id, const Submit& submit) override {
      lines.push_back(fmt::format("begin {} {}", id, submit.request_id()));
    }
    void OnSpans(const std::string& device,
                 const google::protobuf::RepeatedPtrField<internal::v1::Span>& spans) override {
      for (const auto& span : spans)
        lines.push_back(fmt::format("span {} {} on {}", span.id(), span.work_ns(), device));
    }
    void OnRequestEnd(uint64_t id, int output_tokens) override {
      lines.push_back(fmt::format("end {} {}", id, output_tokens));
    }
    std::vector<std::string> lines;
  };
  Recorder recorder;
  World world(2, true, [&](CoreOptions& options) { options.observer = &recorder; });
  world.MakeReady(0);
  Submit submit;
  submit.set_request_id("r");
  submit.add_prompt(1);
  submit.set_max_tokens(9);
  auto [handle, sink] = world.Start(submit, std::make_shared<RecordingSink>());
  const auto send = [&](int worker, const Submit& attempt, int64_t work_ns, int first, bool finish) {
    internal::v1::Events events;
    *events.add_events() = World::Tokens(attempt, first, 1, finish);
    internal::v1::Span* span = events.add_spans();
    span->set_id(attempt.id());
    span->set_work_ns(work_ns);
    world.core->OnLinkEvents(worker, world.lives[worker], &events);
  };
  send(0, world.Submits(0).at(0), 5, 0, false);
  CHECK(world.core->RunningRequests().size() == 1);
  CHECK(world.core->RunningRequests()[0].output_tokens == 1);
  CHECK(world.core->ProcessIds().size() == 2);
  world.Kill(0);
  CHECK(world.core->ProcessIds().size() == 1);
  world.MakeReady(1);
  send(1, world.Submits(1).at(0), 7, 1, true);
  CHECK(recorder.lines ==
        std::vector<std::string>{"begin 1 r", "span 1 5 on cpu0", "span 1 7 on cpu0", "end 1 2"});
  CHECK(sink->done());
  CHECK(world.core->RunningRequests().empty());
}

TEST_CASE("workers of this machine are asked for spans, for an observer") {
  class Silent : public WorkObserver {
   public:
    void OnRequestBegin(uint64_t, const Submit&) override {}
    void OnSpans(const std::string&, const google::protobuf::RepeatedPtrField<internal::v1::Span>&) override {
    }
    void OnRequestEnd(uint64_t, int) override {}
  };
  Silent silent;
  const auto [address, observer, asked] =
      GENERATE_REF(table<std::string, WorkObserver*, bool>({{"unix:/w", &silent, true},
                                                            {"127.0.0.1:7", &silent, true},
                                                            {"localhost:7", &silent, true},
                                                            {"10.0.0.1:7", &silent, false},
                                                            {"unix:/w", nullptr, false}}));
  World world(1, false, [&](CoreOptions& options) {
    options.workers[0].address = address;
    options.observer = observer;
  });
  world.core->OnListening(0, 1);
  world.core->Tick();
  const auto sent = world.host.link(0)->TakeSent();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].hello().wants_spans() == asked);
}

TEST_CASE("a worker that dies after any number of tokens is replayed on another") {
  const int deaths_at = GENERATE(0, 1, 2, 7);
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  auto [handle, sink] = world.Start();
  const Submit first = world.Submits(0).at(0);
  for (int i = 0; i < deaths_at; ++i) world.Send(0, World::Tokens(first, i, 1));
  world.Kill(0);
  const Submit second = world.Submits(1).at(0);
  CHECK(second.id() == first.id());
  CHECK(second.attempt() == 1);
  CHECK(second.generated_size() == deaths_at);
  CHECK(second.prompt_size() == 10);
  CHECK(second.max_tokens() == first.max_tokens());
  // Late words of the dead one, as the life it was and as the attempt it was.
  world.SendAs(0, 1, World::Tokens(first, deaths_at, 1));
  world.SendAs(1, 1, World::Tokens(first, deaths_at, 1));
  CHECK(sink->ids() == Count(deaths_at));
  world.Send(1, World::Tokens(second, deaths_at, 2));
  world.Send(1, World::Tokens(second, deaths_at + 2, 1, true));
  CHECK(sink->ids() == Count(deaths_at + 3));
  CHECK(sink->status().ok());
  CHECK(sink->done());
  CHECK(sink->replays() == 1);
  CHECK(sink->summaries() == 1);
  CHECK(sink->complaints().empty());
  CHECK(world.replays == std::vector<std::string>{"worker0"});
}

TEST_CASE("a limit that the first worker lowered holds for the next one") {
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  auto [handle, sink] = world.Start();
  const Submit first = world.Submits(0).at(0);
  REQUIRE(first.max_tokens() == 100);
  internal::v1::Event event = World::Tokens(first, 0, 1);
  event.mutable_summary()->set_max_tokens(60);
  world.Send(0, event);
  world.Send(0, World::Tokens(first, 1, 1));
  world.Kill(0);
  CHECK(world.Submits(1).at(0).max_tokens() == 60);
}

TEST_CASE("the only worker takes its requests up again once it is back") {
  World world(1);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 4));
  world.Kill(0);
  CHECK(world.core->Workers()[0].state == State::kDown);
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("signal 9"));
  CHECK(world.host.spawns.size() == 1);
  world.Advance(90);
  CHECK(world.host.spawns.size() == 1);
  world.Advance(20);
  CHECK(world.host.spawns.size() == 2);
  world.MakeReady(0);
  const Submit again = world.Submits(0).at(0);
  CHECK(again.generated_size() == 4);
  world.Send(0, World::Tokens(again, 4, 1, true));
  CHECK(sink->ids() == Count(5));
  CHECK(sink->status().ok());
  CHECK(world.core->Workers()[0].restarts == 1);
}

TEST_CASE("a request goes on only under the numerics that its client has heard") {
  World world(2);
  world.MakeReady(0, "n1");
  world.MakeReady(1, "n2");
  auto [heard, heard_sink] = world.Start();
  world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 1));
  // The second goes to the other worker, the third to the first again; nobody has heard of it.
  auto [other, other_sink] = world.Start();
  CHECK(world.Submits(1).size() == 1);
  auto [silent, silent_sink] = world.Start(1000);
  CHECK(world.Submits(0).size() == 1);
  world.Kill(0);
  const std::vector<Submit> moved = world.Submits(1);
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].max_tokens() == 1000);
  world.Advance(150);
  world.MakeReady(0, "n1");
  CHECK(world.Submits(0).at(0).generated_size() == 1);
  CHECK_FALSE(heard_sink->done());
}

TEST_CASE("scored prompt positions are told once over a replay") {
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  auto [handle, sink] = world.Start();
  const auto scored = [](const Submit& submit, int first, int count) {
    internal::v1::Event event;
    event.set_id(submit.id());
    event.set_attempt(submit.attempt());
    event.set_prompt_first(first);
    for (int i = 0; i < count; ++i) {
      event.add_prompt_ids(first + i);
      event.add_prompt_details()->set_has_logprob(true);
    }
    return event;
  };
  world.Send(0, scored(world.Submits(0).at(0), 0, 4));
  world.Kill(0);
  const Submit second = world.Submits(1).at(0);
  world.Send(1, scored(second, 0, 3));
  CHECK(sink->events() == 1);  // nothing new in it
  world.Send(1, scored(second, 3, 4));
  CHECK(sink->prompt_ids() == std::vector<int>{0, 1, 2, 3, 4, 5, 6});
  CHECK(sink->complaints().empty());
}

internal::v1::Event Acknowledgement(const Submit& submit) {
  internal::v1::Event event;
  event.set_id(submit.id());
  event.set_attempt(submit.attempt());
  return event;
}

TEST_CASE("a worker that was dead before it took a request does not count, up to a bound") {
  World world(1);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  CHECK_FALSE(world.Submits(0).at(0).acknowledge());
  world.Kill(0);
  for (int untaken = 1; untaken <= 4; ++untaken) {
    CHECK_FALSE(sink->done());
    world.Advance(2000);
    world.MakeReady(0);
    world.Kill(0);
  }
  CHECK(sink->done());
  CHECK(sink->status().code() == StatusCode::kInternal);
  CHECK_THAT(std::string(sink->status().message()), Catch::Contains("5 workers"));
}

TEST_CASE("two dead workers under one request end it with INTERNAL, a queued one lives on") {
  World world(2);
  world.MakeReady(0, "n1", 1);
  world.MakeReady(1, "n1", 1);
  auto [handle, sink] = world.Start();
  world.Kill(0);
  CHECK_FALSE(sink->done());
  const Submit taken = world.Submits(1).at(0);
  CHECK(taken.acknowledge());
  world.Send(1, Acknowledgement(taken));
  CHECK(sink->events() == 0);
  auto [second, second_sink] = world.Start();
  world.Kill(1);
  world.core->Tick();
  CHECK(sink->done());
  CHECK(sink->status().code() == StatusCode::kInternal);
  CHECK_THAT(std::string(sink->status().message()), Catch::Contains("worker0") && Catch::Contains("worker1"));
  CHECK_FALSE(second_sink->done());
}

TEST_CASE("a session that the worker ends on purpose is no death") {
  World world(1);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  for (int i = 0; i < 3; ++i) {
    world.core->OnLinkClosed(0, world.lives[0], absl::AbortedError("the worker is stopping"));
    world.core->Tick();
    CHECK(world.host.signals.empty());  // it ends by itself
    world.core->OnExited(0, world.lives[0], "exit code 0");
    world.Advance(6000);
    world.MakeReady(0);
  }
  CHECK_FALSE(sink->done());
  CHECK(world.Submits(0).size() == 1);
}

TEST_CASE("no worker within the bound is UNAVAILABLE") {
  World world(1, true, [](CoreOptions& options) { options.timing.no_worker_timeout_ms = 500; });
  auto [early, early_sink] = world.Start();
  world.Advance(400);
  CHECK_FALSE(early_sink->done());
  world.MakeReady(0);  // just in time
  CHECK(world.Submits(0).size() == 1);
  world.Advance(1000);
  CHECK_FALSE(early_sink->done());
  world.Kill(0);
  world.Advance(600);
  CHECK(early_sink->status().code() == StatusCode::kUnavailable);
  CHECK(early_sink->done());
}

TEST_CASE("a worker with the wrong numerics does not count as one") {
  World world(2, true, [](CoreOptions& options) {
    options.timing.no_worker_timeout_ms = 500;
    options.timing.restart_backoff_ms = 5000;
  });
  world.MakeReady(0, "n1");
  world.MakeReady(1, "n2");
  auto [handle, sink] = world.Start();
  world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 1));
  world.Kill(0);
  world.Heartbeat(1, 1);
  world.Advance(600);
  CHECK(sink->status().code() == StatusCode::kUnavailable);
}

TEST_CASE("a deadline ends a request wherever it is") {
  World world(1);
  auto [waiting, waiting_sink] = world.Start(100, 0, 200);
  world.Advance(250);
  CHECK(waiting_sink->status().code() == StatusCode::kDeadlineExceeded);
  world.MakeReady(0);
  auto [running, running_sink] = world.Start(100, 0, 200);
  CHECK(world.Submits(0).at(0).time_left_us() == 200000);
  world.Advance(250);
  CHECK(running_sink->status().code() == StatusCode::kDeadlineExceeded);
  const auto sent = world.host.link(0)->TakeSent();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].has_cancel());
  CHECK(world.core->Workers()[0].requests_running == 0);
}

TEST_CASE("cancel ends a request wherever it is, once, and not from within the call") {
  World world(1);
  auto [waiting, waiting_sink] = world.Start();
  waiting->Cancel();
  waiting->Cancel();
  CHECK_FALSE(waiting_sink->done());
  world.core->Tick();
  CHECK(waiting_sink->status().code() == StatusCode::kCancelled);
  world.MakeReady(0);
  auto [running, running_sink] = world.Start();
  const Submit submit = world.Submits(0).at(0);
  running->Cancel();
  const auto sent = world.host.link(0)->TakeSent();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].cancel().id() == submit.id());
  world.Send(0, World::Tokens(submit, 0, 1));  // was on its way
  world.core->Tick();
  CHECK(running_sink->events() == 0);
  CHECK(running_sink->complaints().empty());
}

TEST_CASE("a cancelled request with memory processing waits for what it cost, or for its worker's death") {
  for (const bool dies : {false, true}) {
    World world(1);
    world.MakeReady(0);
    Submit sparse;
    sparse.add_prompt(1);
    sparse.set_max_tokens(100);
    sparse.mutable_attention()->set_method(6);
    auto [handle, sink] = world.Start(sparse, std::make_shared<RecordingSink>());
    const Submit submit = world.Submits(0).at(0);
    world.Send(0, World::Tokens(submit, 0, 2));
    handle->Cancel();
    handle->Cancel();
    CHECK(world.host.link(0)->TakeSent().size() == 1);
    world.core->Tick();
    CHECK_FALSE(sink->done());
    const int events = sink->events();
    if (dies) {
      world.Kill(0);
      world.core->Tick();
    } else {
      internal::v1::Event last = World::Error(submit, StatusCode::kCancelled);
      last.mutable_summary()->add_memory_steps()->set_time_ns(7);
      world.Send(0, last);
      CHECK(sink->events() == events + 1);
    }
    CHECK(sink->status().code() == StatusCode::kCancelled);
    CHECK(sink->replays() == 0);
    CHECK(sink->complaints().empty());
  }
}

TEST_CASE("a sink may cancel its own request; the end follows when it has returned") {
  World world(1);
  world.MakeReady(0);
  Submit submit;
  submit.add_prompt(1);
  submit.set_max_tokens(10);
  const auto sink = std::make_shared<RecordingSink>();
  std::shared_ptr<Dispatch> handle;
  sink->on_event = [&] {
    handle->Cancel();
    CHECK_FALSE(sink->done());
  };
  handle = world.Start(submit, sink).first;
  world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 1));
  CHECK(sink->done());
  CHECK(sink->status().code() == StatusCode::kCancelled);
  CHECK(sink->complaints().empty());
}

TEST_CASE("a worker gets few more than it runs; the rest waits by priority and arrival") {
  World world(1);
  world.MakeReady(0, "n1", 2);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) sinks.push_back(world.Start(100 + i).second);
  const std::vector<Submit> sent = world.Submits(0);
  CHECK(sent.size() == 4);
  world.Start(200, 0);
  world.Start(201, 0);
  world.Start(202, -5);
  CHECK(world.Submits(0).empty());
  CHECK(world.core->Workers()[0].requests_running == 4);
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    world.Send(0, World::Tokens(sent[i], 0, 1, true));
    for (const Submit& submit : world.Submits(0)) order.push_back(submit.max_tokens());
  }
  CHECK(order == std::vector<int>{202, 200, 201});
}

TEST_CASE("a full worker is asked again, another one at once") {
  World world(2);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  const Submit first = world.Submits(0).at(0);
  world.Send(0, World::Error(first, StatusCode::kResourceExhausted));
  CHECK(world.Submits(0).empty());
  world.Advance(60);
  const Submit second = world.Submits(0).at(0);
  CHECK(second.attempt() == 1);
  world.MakeReady(1);
  world.Send(0, World::Error(second, StatusCode::kResourceExhausted));
  const Submit third = world.Submits(1).at(0);
  world.Send(1, World::Tokens(third, 0, 1, true));
  CHECK(sink->status().ok());
  CHECK(sink->replays() == 0);
  CHECK(sink->ids() == Count(1));
}

TEST_CASE("what a worker refuses for good goes to the client, and the worker stays in service") {
  for (const StatusCode code : {StatusCode::kResourceExhausted, StatusCode::kUnavailable}) {
    World world(1);
    world.MakeReady(0);
    auto [handle, sink] = world.Start();
    const Submit submit = world.Submits(0).at(0);
    CHECK_FALSE(submit.begun());
    internal::v1::Event event = World::Error(submit, code);
    event.mutable_finish()->set_refused(true);
    world.Send(0, event);
    CHECK(sink->status().code() == code);
    CHECK(sink->replays() == 0);
    CHECK(world.core->Workers()[0].state == WorkerSnapshot::State::kReady);
    auto [other, other_sink] = world.Start();
    world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 1, true));
    CHECK(other_sink->status().ok());
  }
}

TEST_CASE("a request that the client has had something of is sent as one that has begun") {
  World world(2);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  world.Send(0, World::Tokens(world.Submits(0).at(0), 0, 1, false));
  world.MakeReady(1);
  world.Kill(0);
  const Submit again = world.Submits(1).at(0);
  CHECK(again.begun());
  CHECK(again.generated_size() == 1);
}

TEST_CASE("what the worker says of a bad request goes to the client") {
  World world(1);
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  internal::v1::Event event = World::Error(world.Submits(0).at(0), StatusCode::kInvalidArgument);
  event.set_first_index(0);
  event.add_token_ids(1000);
  world.Send(0, event);
  CHECK(sink->ids() == Count(1));
  CHECK_FALSE(sink->finished());
  CHECK(sink->status() == absl::InvalidArgumentError("as the worker says"));
}

TEST_CASE("a request too long for every worker is refused by one, not kept") {
  World world(1);
  world.MakeReady(0);
  auto [handle, sink] = world.Start(5000);
  CHECK(world.Submits(0).size() == 1);
}

TEST_CASE("a draining worker finishes what it has and gets no more") {
  World world(2);
  world.MakeReady(0);
  auto [first, first_sink] = world.Start();
  const Submit submit = world.Submits(0).at(0);
  internal::v1::Heartbeat heartbeat;
  heartbeat.set_draining(true);
  world.core->OnLinkHeartbeat(0, 1, heartbeat);
  CHECK(world.core->Workers()[0].state == State::kDraining);
  auto [second, second_sink] = world.Start();
  CHECK(world.Submits(0).empty());
  world.MakeReady(1);
  CHECK(world.Submits(1).size() == 1);
  world.Send(0, World::Tokens(submit, 0, 1, true));
  CHECK(first_sink->status().ok());
  CHECK(first_sink->done());
}

TEST_CASE("a skipped index is the worker's end, not the client's") {
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  auto [handle, sink] = world.Start();
  const Submit first = world.Submits(0).at(0);
  world.Send(0, World::Tokens(first, 0, 1));
  world.Send(0, World::Tokens(first, 2, 1));
  world.core->Tick();
  REQUIRE(world.host.signals.size() == 1);
  CHECK(world.host.signals[0] == std::tuple<int, uint64_t, int>{0, 1, SIGKILL});
  const Submit second = world.Submits(1).at(0);
  world.Send(1, World::Tokens(second, 1, 1, true));
  CHECK(sink->ids() == Count(2));
  CHECK(sink->status().ok());
}

TEST_CASE("sessions stay with their worker and are ended everywhere") {
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  Submit submit;
  for (int i = 0; i < 50; ++i) submit.add_prompt(i);
  submit.set_max_tokens(10);
  const auto blocker = world.Start(5);  // makes worker 1 the emptier one
  world.Submits(0);
  submit.set_session_id("s");
  world.Start(submit, std::make_shared<RecordingSink>());
  const std::vector<Submit> first = world.Submits(1);
  REQUIRE(first.size() == 1);
  world.Send(1, World::Tokens(first[0], 0, 10, true));
  blocker.first->Cancel();
  world.Submits(0);
  world.Start(submit, std::make_shared<RecordingSink>());
  CHECK(world.Submits(1).size() == 1);
  CHECK(world.core->EndSession("s"));
  CHECK_FALSE(world.core->EndSession("s"));
  for (int worker = 0; worker < 2; ++worker) {
    const auto sent = world.host.link(worker)->TakeSent();
    REQUIRE(sent.size() == 2);
    CHECK(sent[0].end_session().session_id() == "s");
  }
}

TEST_CASE("a session that is idle for too long is forgotten, here and at the workers") {
  World world(2, true, [](CoreOptions& options) { options.session_ttl = std::chrono::milliseconds(1000); });
  world.MakeReady(0);
  world.MakeReady(1);
  const auto ended = [&](int worker) {
    std::vector<std::string> sessions;
    for (const internal::v1::ToWorker& message : world.host.link(worker)->TakeSent()) {
      if (message.has_end_session()) sessions.push_back(message.end_session().session_id());
    }
    return sessions;
  };
  Submit submit;
  submit.add_prompt(1);
  submit.set_max_tokens(10);
  submit.set_session_id("s");
  world.Start(submit, std::make_shared<RecordingSink>());
  const Submit first = world.Submits(0).at(0);
  submit.set_session_id("t");
  world.Start(submit, std::make_shared<RecordingSink>());
  const Submit second = world.Submits(1).at(0);
  world.Send(1, World::Tokens(second, 0, 10, true));
  world.Advance(500);
  ended(0);
  ended(1);
  // A request that runs for longer uses its session all the time.
  world.Send(0, World::Tokens(first, 0, 1));
  world.Advance(490);
  CHECK(ended(0).empty());
  world.Heartbeat(0, 1, 1);
  world.Heartbeat(1, 1);
  world.Advance(20);
  CHECK(ended(0) == std::vector<std::string>{"t"});
  CHECK(ended(1) == std::vector<std::string>{"t"});
  CHECK_FALSE(world.core->EndSession("t"));
  ended(0);
  ended(1);
  world.Send(0, World::Tokens(first, 1, 9, true));
  world.Advance(990);
  world.Heartbeat(0, 2);
  world.Heartbeat(1, 2);
  CHECK(ended(0).empty());
  world.Advance(10);
  CHECK(ended(0) == std::vector<std::string>{"s"});
  CHECK_FALSE(world.core->EndSession("s"));
}

TEST_CASE("the supervising thread is to look when the first session has been idle for too long") {
  World world(1, true, [](CoreOptions& options) { options.session_ttl = std::chrono::milliseconds(100); });
  world.MakeReady(0);
  const int wakes = world.host.wakes;
  Submit submit;
  submit.add_prompt(1);
  submit.set_session_id("s");
  world.Start(submit, std::make_shared<RecordingSink>());
  CHECK(world.host.wakes > wakes);
  CHECK(world.core->Tick() == TimePoint(std::chrono::milliseconds(world.now_ms + 100)));
}

TEST_CASE("sessions are forgotten in the order of their last use, busy ones not, and some at a time") {
  using Sessions = std::vector<std::string>;
  const auto at = [](int ms) { return TimePoint(std::chrono::milliseconds(ms)); };
  SessionMap sessions(3, std::chrono::milliseconds(10));
  CHECK(sessions.NextEnd() == TimePoint::max());
  for (const char* name : {"a", "b", "c", "d"}) sessions.Set(name, {1, 2}, at(0));
  CHECK(sessions.size() == 3);
  CHECK(sessions.Find("a").worker == -1);
  sessions.Touch("b", at(1));
  sessions.Touch("a", at(1));  // forgotten, and stays so
  CHECK(sessions.NextEnd() == at(10));
  CHECK(sessions.TakeIdle(at(9), {}, 8).empty());
  CHECK(sessions.TakeIdle(at(20), {"c"}, 1) == Sessions{"d"});
  CHECK(sessions.TakeIdle(at(20), {}, 8) == Sessions{"b"});
  CHECK(sessions.NextEnd() == at(30));
  CHECK(sessions.TakeIdle(at(30), {}, 8) == Sessions{"c"});
  CHECK(sessions.size() == 0);
}

TEST_CASE("an equal prefix draws a request to where it is cached") {
  World world(2);
  world.MakeReady(0);
  world.MakeReady(1);
  Submit submit;
  for (int i = 0; i < 200; ++i) submit.add_prompt(i);
  submit.set_max_tokens(10);
  const auto blocker = world.Start(50);
  world.Start(submit, std::make_shared<RecordingSink>());
  const std::vector<Submit> first = world.Submits(1);
  REQUIRE(first.size() == 1);
  world.Send(1, World::Tokens(first[0], 0, 10, true));
  blocker.first->Cancel();
  world.Submits(0);
  submit.add_prompt(7);
  world.Start(submit, std::make_shared<RecordingSink>());
  CHECK(world.Submits(1).size() == 1);
  Submit another = submit;
  another.set_prompt(0, 99);
  world.Start(another, std::make_shared<RecordingSink>());
  CHECK(world.Submits(0).size() == 1);
}

}  // namespace
}  // namespace mnemo::dispatch
