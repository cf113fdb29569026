#include "server/worker/service/worker_service.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <semaphore>
#include <thread>

#include "server/link/connection.h"
#include "server/link/socket.h"
#include "server/worker/service/runtime.h"
#include "tests/support/eventually.h"
#include "tests/support/submit.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_model.h"

namespace mnemo::worker_service {
namespace {

using internal::v1::Event;
using internal::v1::Finish;
using internal::v1::FromWorker;
using internal::v1::Submit;
using internal::v1::ToWorker;
using mnemo::testing::Eventually;
using mnemo::testing::MakeSubmit;

// Tokens of each of several requests: together several times what the buffers of a socket hold.
constexpr int kManyTokens = 2000 / MNEMO_TEST_REDUCTION;

// A worker in this process, on a Unix socket of its own.
class TestWorker {
 public:
  TestWorker() {
    WorkerOptions options;
    options.config.model.path = mnemo::testing::WriteTinyModel({.context_tokens = 8192}, folder_.path());
    options.config.device = "reference";
    options.config.cpu.threads = 1;
    options.config.engine.max_running = 4;
    options.config.engine.max_waiting = 4;
    absl::StatusOr<std::unique_ptr<Runtime>> runtime = Runtime::Create(options);
    INFO(runtime.status());
    REQUIRE(runtime.ok());
    runtime_ = *std::move(runtime);
    service = std::make_unique<WorkerService>(runtime_->MakeReady(options), runtime_->progress());
    absl::StatusOr<std::unique_ptr<worker::Engine>> made = runtime_->CreateEngine(service.get());
    REQUIRE(made.ok());
    engine = *std::move(made);
    service->Start(engine.get());
    address = "unix:" + folder_.path("worker.sock");
    REQUIRE(service->Listen(address).ok());
  }
  ~TestWorker() {
    service->StopSessions();
    CHECK_FALSE(std::filesystem::exists(folder_.path("worker.sock")));
    engine.reset();
  }
  // Until no request holds a page.
  bool BecomesIdle() const {
    return Eventually([&] {
      const worker::EngineStats stats = engine->Stats();
      return stats.running == 0 && stats.waiting == 0 && stats.kv_pages_used == 0;
    });
  }

  std::unique_ptr<WorkerService> service;
  std::unique_ptr<worker::Engine> engine;
  std::string address;

 private:
  mnemo::testing::TempFolder folder_;
  std::unique_ptr<Runtime> runtime_;
};

UniqueFd ConnectTo(const TestWorker& worker) {
  absl::StatusOr<UniqueFd> socket = link::Connect(worker.address, {}, std::atomic<bool>(false));
  REQUIRE(socket.ok());
  return *std::move(socket);
}

struct Answer {
  std::vector<int> ids;
  int first_index = -1;
  int events = 0;
  int first_tokens = 0;  // in the first event
  bool has_summary = false;
  Finish finish;
};

class Client {
 public:
  explicit Client(const TestWorker& worker)
      : connection_(ConnectTo(worker), [this] { written_.release(); }) {}

  void Hello(uint32_t protocol = 1, uint32_t interval_ms = 20, uint32_t event_interval_ms = 0) {
    ToWorker message;
    message.mutable_hello()->set_protocol(protocol);
    message.mutable_hello()->set_heartbeat_interval_ms(interval_ms);
    message.mutable_hello()->set_event_interval_ms(event_interval_ms);
    Write(message);
  }
  void Send(const Submit& submit) {
    ToWorker message;
    *message.mutable_submit() = submit;
    Write(message);
  }
  void Cancel(uint64_t id, uint32_t attempt) {
    ToWorker message;
    message.mutable_cancel()->set_id(id);
    message.mutable_cancel()->set_attempt(attempt);
    Write(message);
  }
  // False at the end of the session.
  bool Read(FromWorker* message) {
    const absl::Status status = connection_.Read(message);
    if (status.ok() && !message->has_end()) return true;
    end_ = status.ok() ? absl::Status(static_cast<absl::StatusCode>(message->end().status_code()),
                                      message->end().status_message())
                       : status;
    return false;
  }
  // Reads up to the end of the request.
  Answer Collect(uint64_t id, uint32_t attempt = 0) {
    Answer answer;
    FromWorker message;
    while (!answer.finish.reason() && Read(&message)) {
      for (const Event& event : message.events().events()) {
        if (event.id() == id && event.attempt() == attempt) Add(event, &answer);
      }
    }
    return answer;
  }
  // Reads up to the ends of `count` requests.
  std::map<uint64_t, Answer> CollectAll(int count) {
    std::map<uint64_t, Answer> answers;
    FromWorker message;
    while (count > 0 && Read(&message)) {
      for (const Event& event : message.events().events()) {
        Add(event, &answers[event.id()]);
        if (event.has_finish()) --count;
      }
    }
    return answers;
  }
  // Reads to the end of the session; what it ended with.
  absl::Status Finish() {
    FromWorker message;
    while (end_.ok() && Read(&message)) continue;
    return end_;
  }
  void Break() { connection_.Break(); }

 private:
  static void Add(const Event& event, Answer* answer) {
    if (answer->events++ == 0) answer->first_tokens = event.token_ids_size();
    if (event.token_ids_size() > 0) {
      if (answer->first_index < 0) answer->first_index = event.first_index();
      CHECK(event.first_index() == answer->first_index + static_cast<int>(answer->ids.size()));
    }
    answer->ids.insert(answer->ids.end(), event.token_ids().begin(), event.token_ids().end());
    if (event.has_summary()) answer->has_summary = true;
    if (event.has_finish()) answer->finish = event.finish();
  }

  void Write(const ToWorker& message) {
    outgoing_.clear();
    REQUIRE(link::AppendFrame(message, &outgoing_).ok());
    if (!connection_.Write(outgoing_)) written_.acquire();
  }

  std::string outgoing_;
  std::binary_semaphore written_{0};
  absl::Status end_;
  link::Connection connection_;
};

TEST_CASE("a session begins with Ready, and a request runs to its end") {
  TestWorker worker;
  Client client(worker);
  client.Hello();
  FromWorker message;
  REQUIRE(client.Read(&message));
  REQUIRE(message.has_ready());
  CHECK(message.ready().protocol() == 1);
  CHECK(message.ready().vocabulary() == mnemo::testing::kTinyVocabulary);
  CHECK(message.ready().context_tokens() == 8192);
  CHECK(message.ready().max_running() == 4);
  CHECK(message.ready().pid() == ::getpid());
  CHECK_THAT(message.ready().numerics_id(), Catch::Contains(message.ready().model_id()));
  client.Send(MakeSubmit(7, 30));
  const Answer answer = client.Collect(7);
  CHECK(answer.first_index == 0);
  CHECK(answer.ids.size() == 30);
  CHECK(answer.has_summary);
  CHECK(answer.finish.reason() == Finish::REASON_LENGTH);

  SECTION("a replay goes on with the same tokens") {
    Submit again = MakeSubmit(7, 30);
    again.set_attempt(1);
    for (int i = 0; i < 11; ++i) again.add_generated(answer.ids[static_cast<size_t>(i)]);
    client.Send(again);
    const Answer rest = client.Collect(7, 1);
    CHECK(rest.first_index == 11);
    CHECK(rest.ids == std::vector<int>(answer.ids.begin() + 11, answer.ids.end()));
  }
  SECTION("what the engine refuses is told with its reason") {
    Submit bad = MakeSubmit(8, 30);
    bad.set_prompt(3, 1000000);
    client.Send(bad);
    const Answer refused = client.Collect(8);
    CHECK(refused.finish.reason() == Finish::REASON_ERROR);
    CHECK(refused.finish.status_code() == static_cast<int>(absl::StatusCode::kInvalidArgument));
    CHECK_FALSE(refused.finish.status_message().empty());
  }
  SECTION("a deadline travels as time left") {
    Submit hurried = MakeSubmit(9, 8000);
    hurried.set_time_left_us(50000);
    client.Send(hurried);
    CHECK(client.Collect(9).finish.status_code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  }
  SECTION("cancel ends a request, of the attempt it names only") {
    client.Send(MakeSubmit(10, 8000));
    while (client.Read(&message) && message.events().events_size() == 0) continue;
    client.Cancel(10, 1);
    client.Cancel(11, 0);
    client.Cancel(10, 0);
    CHECK(client.Collect(10).finish.status_code() == static_cast<int>(absl::StatusCode::kCancelled));
  }
  SECTION("heartbeats carry the engine's counts") {
    while (client.Read(&message) && !(message.has_heartbeat() && message.heartbeat().running() == 0))
      continue;
    CHECK(message.heartbeat().progress() > 0);
    CHECK(message.heartbeat().generated_tokens() == 30);
    CHECK(message.heartbeat().kv_pages_total() == worker.engine->Stats().kv_pages_total);
    CHECK_FALSE(message.heartbeat().draining());
  }
  CHECK(worker.BecomesIdle());
}

// Whether `happens` returns true for one of some requests. Events merge while a message is being written, and
// a machine with other work may take long over that, so that no single request shows how events are cut.
bool HappensOnce(const std::function<bool(uint64_t id)>& happens) {
  for (uint64_t id = 1; id <= 100; ++id) {
    if (happens(id)) return true;
  }
  return false;
}

TEST_CASE("tokens of fast steps go together, but for the first ones and where mnemod asks for each") {
  constexpr int kTokens = 200;
  TestWorker worker;
  Client client(worker);
  // No heartbeat comes between; a step takes far less than the interval.
  client.Hello(1, 60000, 1000);
  struct Cut {
    int first = 0;  // tokens of the first event
    int events = 0;
  };
  const auto cut_of = [&](uint64_t id, bool at_once) {
    Submit submit = MakeSubmit(id, kTokens);
    submit.set_at_once(at_once);
    client.Send(submit);
    const Answer answer = client.Collect(id);
    CHECK(answer.ids.size() == kTokens);
    CHECK(answer.first_index == 0);
    CHECK(answer.finish.reason() == Finish::REASON_LENGTH);
    return Cut{.first = answer.first_tokens, .events = answer.events};
  };
  CHECK(HappensOnce([&](uint64_t id) {
    const Cut cut = cut_of(id, false);
    return cut.first == 1 && cut.events < kTokens / 2;
  }));
  CHECK(HappensOnce([&](uint64_t id) { return cut_of(100 + id, true).events == kTokens; }));
  CHECK(worker.BecomesIdle());
}

TEST_CASE("a request is acknowledged before its first event, where mnemod asks for it") {
  TestWorker worker;
  Client client(worker);
  client.Hello(1, 60000);
  const auto first_tokens = [&](uint64_t id, bool acknowledge) {
    Submit submit = MakeSubmit(id, 3);
    submit.set_acknowledge(acknowledge);
    client.Send(submit);
    const Answer answer = client.Collect(id);
    CHECK(answer.ids.size() == 3);
    return answer.first_tokens;
  };
  CHECK(HappensOnce([&](uint64_t id) { return first_tokens(id, true) == 0; }));
  CHECK(first_tokens(101, false) > 0);
  CHECK(worker.BecomesIdle());
}

TEST_CASE("a stranger is refused with what is wrong") {
  TestWorker worker;
  Client client(worker);
  FromWorker message;
  SECTION("another protocol") {
    client.Hello(9);
    const absl::Status status = client.Finish();
    CHECK(absl::IsFailedPrecondition(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("9") && Catch::Contains("1"));
  }
  SECTION("no Hello") {
    client.Send(MakeSubmit(1, 1));
    CHECK(absl::IsFailedPrecondition(client.Finish()));
  }
  SECTION("an interval out of range") {
    client.Hello(1, 5);
    const absl::Status status = client.Finish();
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("heartbeat_interval_ms"));
  }
  SECTION("an interval of events out of range") {
    client.Hello(1, 20, 1001);
    const absl::Status status = client.Finish();
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("event_interval_ms: 1001 is not in [0, 1000]"));
  }
  SECTION("one that speaks another language") {
    const UniqueFd stranger = ConnectTo(worker);
    const std::string_view request = "GET / HTTP/1.1\r\nHost: worker\r\n\r\n";
    REQUIRE(::send(stranger.get(), request.data(), request.size(), 0) > 0);
    std::string answer(1000, '\0');
    ssize_t count = 0;
    do count = ::recv(stranger.get(), answer.data(), answer.size(), 0);
    while (count > 0);
    CHECK(count <= 0);  // closed
  }
  // None of them has harmed the worker.
  Client other(worker);
  other.Hello();
  other.Send(MakeSubmit(1, 5));
  CHECK(other.Collect(1).ids.size() == 5);
}

// Whether the worker has closed it.
bool IsClosed(const UniqueFd& socket) {
  char byte;
  return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0;
}

TEST_CASE("more connections than a front end makes are refused, until others are closed") {
  TestWorker worker;
  std::vector<UniqueFd> strangers;
  // The worker's backlog may be full for a moment.
  REQUIRE(Eventually([&] {
    absl::StatusOr<UniqueFd> socket = link::Connect(worker.address, {}, std::atomic<bool>(false));
    if (socket.ok()) strangers.push_back(*std::move(socket));
    return strangers.size() == 20;
  }));
  CHECK(Eventually([&] { return std::count_if(strangers.begin(), strangers.end(), IsClosed) == 4; }));
  strangers.clear();
  CHECK(Eventually([&] {
    Client client(worker);
    client.Hello();
    FromWorker message;
    return client.Read(&message) && message.has_ready();
  }));
}

TEST_CASE("a stranger does not end the session") {
  TestWorker worker;
  Client client(worker);
  client.Hello();
  client.Send(MakeSubmit(1, 300));
  FromWorker message;
  while (client.Read(&message) && message.events().events_size() == 0) continue;
  const UniqueFd silent = ConnectTo(worker);
  Client hasty(worker);
  hasty.Cancel(1, 0);
  CHECK(absl::IsFailedPrecondition(hasty.Finish()));
  CHECK(client.Collect(1).finish.reason() == Finish::REASON_LENGTH);
}

TEST_CASE("a second session ends the first and its requests") {
  TestWorker worker;
  Client first(worker);
  first.Hello();
  first.Send(MakeSubmit(1, 8000));
  FromWorker message;
  while (first.Read(&message) && message.events().events_size() == 0) continue;
  Client second(worker);
  second.Hello();
  second.Send(MakeSubmit(1, 5));  // the same number
  CHECK(second.Collect(1).ids.size() == 5);
  CHECK(absl::IsAborted(first.Finish()));
  CHECK(worker.BecomesIdle());
}

TEST_CASE("a broken stream ends its requests") {
  TestWorker worker;
  {
    Client client(worker);
    client.Hello();
    for (uint64_t id = 1; id <= 6; ++id) client.Send(MakeSubmit(id, 8000));
    FromWorker message;
    while (client.Read(&message) && message.events().events_size() == 0) continue;
    client.Break();
  }
  CHECK(worker.BecomesIdle());
}

TEST_CASE("a session whose front end does not read is ended all the same") {
  TestWorker worker;
  Client stuck(worker);
  stuck.Hello();
  for (uint64_t id = 1; id <= 4; ++id) {
    Submit submit = MakeSubmit(id, kManyTokens);
    submit.set_logprobs(20);
    stuck.Send(submit);
  }
  REQUIRE(Eventually([&] { return worker.engine->Stats().generated_tokens == 4 * kManyTokens; }));
  SECTION("by another session") {
    Client other(worker);
    other.Hello();
    other.Send(MakeSubmit(9, 5));
    CHECK(other.Collect(9).ids.size() == 5);
  }
  SECTION("by the end of the worker") { worker.service->StopSessions(); }
  CHECK_FALSE(stuck.Finish().ok());
}

TEST_CASE("a front end that does not read holds up nothing and misses nothing") {
  TestWorker worker;
  Client client(worker);
  client.Hello();
  for (uint64_t id = 1; id <= 4; ++id) {
    Submit submit = MakeSubmit(id, kManyTokens);
    submit.set_logprobs(20);
    client.Send(submit);
  }
  // All is made before any of it is read.
  REQUIRE(Eventually([&] { return worker.engine->Stats().generated_tokens == 4 * kManyTokens; }));
  std::map<uint64_t, Answer> answers = client.CollectAll(4);
  for (const auto& [id, answer] : answers) {
    CHECK(answer.ids.size() == kManyTokens);
    CHECK(answer.finish.reason() == Finish::REASON_LENGTH);
  }
}

TEST_CASE("a worker that drains finishes what it has, takes no more, and says so") {
  TestWorker worker;
  Client client(worker);
  client.Hello();
  client.Send(MakeSubmit(1, 1500));
  FromWorker message;
  while (client.Read(&message) && message.events().events_size() == 0) continue;
  std::thread drain([&] {
    worker.service->Drain(std::chrono::seconds(60));
    worker.service->StopSessions();
  });
  while (client.Read(&message) && !message.heartbeat().draining()) continue;
  client.Send(MakeSubmit(2, 5));
  int finished = 0;
  while (client.Read(&message)) {
    for (const Event& event : message.events().events()) {
      if (event.id() == 2)
        CHECK(event.finish().status_code() == static_cast<int>(absl::StatusCode::kUnavailable));
      if (event.id() == 1 && event.has_finish()) {
        CHECK(event.finish().reason() == Finish::REASON_LENGTH);
        ++finished;
      }
    }
  }
  drain.join();
  CHECK(finished == 1);
  CHECK(absl::IsAborted(client.Finish()));
}

}  // namespace
}  // namespace mnemo::worker_service
