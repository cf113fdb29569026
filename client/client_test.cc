#include "client/client.h"

#include <google/protobuf/stubs/logging.h>

#include <catch2/catch.hpp>
#include <functional>
#include <mutex>
#include <thread>

#include "client/testing/fake_server.h"

namespace mnemo::client {
namespace {

using namespace std::chrono_literals;
using testing::FakeScript;
using testing::FakeServer;
using testing::MakeDelta;
using testing::MakeFinal;

std::unique_ptr<Client> Connected(const FakeServer& server) {
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(server.address());
  REQUIRE(client.ok());
  return *std::move(client);
}

v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.set_prompt(text);
  return request;
}

grpc::Status Overloaded(grpc::ServerContext* context, const char* pushback) {
  context->AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "limits.max_queued: 256 requests are waiting"};
}

TEST_CASE("a pulled generation delivers every message in order, then OK") {
  FakeServer server({});
  auto client = Connected(server);
  auto stream = client->Generate(Prompt("hello"));
  Completion completion;
  while (auto message = stream->Next()) completion.Add(std::move(*message));
  CHECK(stream->status().ok());
  CHECK(completion.text == "hello");
  CHECK(completion.tokens.size() == 5);
  CHECK(completion.started.prompt_token_count() == 5);
  REQUIRE(completion.final.has_value());
  CHECK(FinishReasonName(completion.final->finish_reason()) == std::string("eos"));
  CHECK_FALSE(stream->Next().has_value());
}

TEST_CASE("callbacks get the messages and one end") {
  struct Recorder : GenerateObserver {
    void OnMessage(v1::GenerateResponse message) override { completion.Add(std::move(message)); }
    void OnDone(const absl::Status& end) override {
      std::lock_guard lock(mutex);
      status = end;
      ++ends;
    }
    Completion completion;
    absl::Status status;
    int ends = 0;
    std::mutex mutex;
  };
  FakeServer server({});
  auto recorder = std::make_shared<Recorder>();
  {
    auto client = Connected(server);
    client->Generate(Prompt("callbacks"), {}, recorder);
  }  // the call goes on without its handle; the client waits for it
  std::lock_guard lock(recorder->mutex);
  CHECK(recorder->ends == 1);
  CHECK(recorder->status.ok());
  CHECK(recorder->completion.text == "callbacks");
}

TEST_CASE("a reader that does not pull holds the server back; all arrives when it pulls again") {
  constexpr int kMessages = 2000;
  std::atomic<int> written{0};
  FakeScript script;
  script.generate = [&](grpc::ServerContext*, const v1::GenerateRequest&, FakeScript::Writer* writer) {
    for (int i = 0; i < kMessages; ++i) {
      if (!writer->Write(MakeDelta(i, std::string(32768, 'x')))) return grpc::Status::CANCELLED;
      ++written;
    }
    writer->Write(MakeFinal(v1::FINISH_REASON_LENGTH, 1, kMessages));
    return grpc::Status::OK;
  };
  FakeServer server(script);
  auto client = Connected(server);
  auto stream = client->Generate(Prompt("x"));
  std::this_thread::sleep_for(300ms);
  CHECK(written < kMessages);
  int32_t next = 0;
  bool in_order = true;
  while (auto message = stream->Next()) {
    if (!message->has_delta()) continue;
    in_order = in_order && message->delta().tokens(0).id() == next++;
  }
  CHECK(in_order);
  CHECK(next == kMessages);
  CHECK(stream->status().ok());
}

TEST_CASE("cancel, destruction and deadline end a generation on both sides") {
  FakeScript script;
  script.token_gap = 10ms;
  FakeServer server(script);
  auto client = Connected(server);
  v1::GenerateRequest endless = Prompt("ab");
  endless.mutable_sampling()->set_max_tokens(100000);

  SECTION("cancel") {
    auto stream = client->Generate(endless);
    REQUIRE(stream->Next().has_value());
    stream->Cancel();
    while (stream->Next()) {
    }
    CHECK(absl::IsCancelled(stream->status()));
  }
  SECTION("destruction, also while reading is paused") { client->Generate(endless)->Next(); }
  SECTION("deadline") {
    CallOptions options;
    options.timeout = 100ms;
    auto stream = client->Generate(endless, options);
    while (stream->Next()) {
    }
    CHECK(absl::IsDeadlineExceeded(stream->status()));
  }
  for (int i = 0; i < 500 && server.cancelled() == 0; ++i) std::this_thread::sleep_for(10ms);
  CHECK(server.cancelled() == 1);
}

TEST_CASE("errors carry the server's code and message") {
  FakeServer server({});
  auto client = Connected(server);
  v1::GenerateRequest empty;
  empty.mutable_token_ids();
  auto stream = client->Generate(empty);
  CHECK_FALSE(stream->Next().has_value());
  CHECK(absl::IsInvalidArgument(stream->status()));
  CHECK(stream->status().message() == "prompt: empty; at least 1 token is needed");
}

TEST_CASE("text that is not UTF-8 is refused here and never sent") {
  FakeServer server({});
  auto client = Connected(server);
  auto stream = client->Generate(Prompt("ab\xff"));
  CHECK_FALSE(stream->Next().has_value());
  CHECK(stream->status().message() == "prompt: not valid UTF-8 at byte 2");
  const auto refusal = [&](const std::function<void(v1::Chat&)>& spoil) {
    v1::GenerateRequest chat;
    chat.mutable_chat()->add_messages()->set_content("x");
    chat.mutable_chat()->add_messages()->set_content("y");
    spoil(*chat.mutable_chat());
    auto refused = client->Generate(chat);
    CHECK_FALSE(refused->Next().has_value());
    return std::string(refused->status().message());
  };
  CHECK(refusal([](v1::Chat& chat) { chat.mutable_messages(1)->set_name("\xff"); }) ==
        "chat.messages[1].name: not valid UTF-8 at byte 0");
  CHECK(refusal([](v1::Chat& chat) { chat.set_tools_json("[\xff]"); }) ==
        "chat.tools_json: not valid UTF-8 at byte 1");
  CHECK(refusal([](v1::Chat& chat) { (*chat.mutable_template_args())["a"] = "\xff"; }) ==
        "chat.template_args[0].value: not valid UTF-8 at byte 0");
  v1::TokenizeRequest request;
  request.set_text("\xed\xa0\x80");  // a surrogate
  CHECK(absl::IsInvalidArgument(client->Tokenize(request).status()));
  CHECK(server.calls() == 0);
  CHECK(CheckUtf8("t", std::string("a\0\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 11)).ok());
  CHECK_FALSE(CheckUtf8("t", "\xc0\x80").ok());
  CHECK_FALSE(CheckUtf8("t", "\xf4\x90\x80\x80").ok());
  CHECK_FALSE(CheckUtf8("t", "\xe2\x82").ok());
}

TEST_CASE("a message that cannot be read ends the call instead of hanging it") {
  google::protobuf::LogSilencer silencer;  // protobuf logs every such string
  FakeScript script;
  script.generate = [](grpc::ServerContext* context, const v1::GenerateRequest&, FakeScript::Writer* writer) {
    for (int i = 0; i < 1000 && !context->IsCancelled(); ++i) {
      writer->Write(MakeDelta(1, "\xff"));  // not UTF-8: protobuf refuses it when it reads it
      std::this_thread::sleep_for(10ms);
    }
    return grpc::Status::OK;
  };
  FakeServer server(script);
  auto client = Connected(server);
  auto stream = client->Generate(Prompt("x"));
  CHECK_FALSE(stream->Next().has_value());
  CHECK(absl::IsInternal(stream->status()));
}

TEST_CASE("overload is retried only where asked, after the server's pause") {
  std::atomic<int> tries{0};
  const char* pushback = "60";  // ms
  FakeScript script;
  script.generate = [&](grpc::ServerContext* context, const v1::GenerateRequest&,
                        FakeScript::Writer* writer) {
    if (++tries < 3) return Overloaded(context, pushback);
    writer->Write(MakeFinal(v1::FINISH_REASON_LENGTH, 1, 0));
    return grpc::Status::OK;
  };
  FakeServer server(script);
  auto client = Connected(server);
  CallOptions options;
  SECTION("not asked") {
    auto stream = client->Generate(Prompt("x"), options);
    CHECK_FALSE(stream->Next().has_value());
    CHECK(absl::IsResourceExhausted(stream->status()));
    CHECK(RetryPushback(stream->status()) == 60);
    CHECK(tries == 1);
  }
  options.retry.on_overload = true;
  SECTION("asked") {
    const auto begin = std::chrono::steady_clock::now();
    auto stream = client->Generate(Prompt("x"), options);
    CHECK(stream->Next().has_value());
    CHECK_FALSE(stream->Next().has_value());
    CHECK(stream->status().ok());
    CHECK(tries == 3);
    CHECK(std::chrono::steady_clock::now() - begin >= 120ms);
  }
  SECTION("attempts are bounded") {
    options.retry.max_attempts = 2;
    auto stream = client->Generate(Prompt("x"), options);
    CHECK_FALSE(stream->Next().has_value());
    CHECK(absl::IsResourceExhausted(stream->status()));
    CHECK(tries == 2);
  }
  SECTION("no attempt past the deadline") {
    pushback = "120000";
    options.timeout = 60s;
    auto stream = client->Generate(Prompt("x"), options);
    CHECK_FALSE(stream->Next().has_value());
    CHECK(absl::IsResourceExhausted(stream->status()));
    CHECK(tries == 1);
  }
}

TEST_CASE("a cancel while waiting for a retry ends the call at once; a negative pushback forbids one") {
  std::atomic<int> tries{0};
  const char* pushback = "60000";
  FakeScript script;
  script.generate = [&](grpc::ServerContext* context, const v1::GenerateRequest&, FakeScript::Writer*) {
    ++tries;
    return Overloaded(context, pushback);
  };
  SECTION("cancel") {
    FakeServer server(script);
    auto client = Connected(server);
    CallOptions options;
    options.retry.on_overload = true;
    auto stream = client->Generate(Prompt("x"), options);
    std::this_thread::sleep_for(100ms);
    stream->Cancel();
    CHECK_FALSE(stream->Next().has_value());
    CHECK(absl::IsCancelled(stream->status()));
  }
  SECTION("negative") {
    pushback = "-1";
    FakeServer server(script);
    auto client = Connected(server);
    CallOptions options;
    options.retry.on_overload = true;
    auto stream = client->Generate(Prompt("x"), options);
    CHECK_FALSE(stream->Next().has_value());
    CHECK(absl::IsResourceExhausted(stream->status()));
  }
  CHECK(tries == 1);
}

TEST_CASE("unary calls are retried on UNAVAILABLE, a drain never") {
  std::atomic<int> tries{0};
  FakeScript script;
  script.status = [&](v1::StatusResponse* response) {
    if (++tries < 3) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "no worker");
    response->set_version("3");
    return grpc::Status::OK;
  };
  script.drain = [&](const v1::DrainRequest&, v1::DrainResponse*) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "busy");
  };
  FakeServer server(script);
  auto client = Connected(server);
  CHECK(client->Status()->version() == "3");
  CHECK(tries == 3);
  CHECK(absl::IsUnavailable(client->Drain(1ms).status()));
  CHECK(server.drains() == 1);
}

TEST_CASE("every unary call reaches its method") {
  FakeServer server({});
  auto client = Connected(server);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("hi");
  CHECK(client->Tokenize(tokenize)->ids(1) == 'i');
  v1::DetokenizeRequest detokenize;
  detokenize.add_ids('h');
  CHECK(client->Detokenize(detokenize)->text() == "h");
  CHECK(client->ListModels()->models(0).name() == "fake");
  CHECK(client->EndSession("s1")->existed());
  CHECK(server.ended_sessions() == std::vector<std::string>{"s1"});
  CHECK(client->Status()->workers(0).pid() == 4242);
  CHECK(client->Drain(1500ms)->finished() == 3);
  CHECK(client->Resume().ok());
  CHECK(server.resumes() == 1);
}

TEST_CASE("a port that gRPC would take for another is refused") {
  for (const char* address : {"127.0.0.1:65536", "[::1]:99999999999999"}) {
    CHECK(absl::IsInvalidArgument(Client::Connect(address).status()));
  }
}

TEST_CASE("a refused connection is told quickly, a silent one within the timeout") {
  std::string address;
  {
    FakeServer server({});
    address = server.address();
  }  // no server listens there now
  ClientOptions options;
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = Client::Connect(address, options).status();
  CHECK(absl::IsUnavailable(status));
  CHECK(std::string(status.message()).find("cannot connect to " + address) != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - begin < 3s);

  options.wait_for_server = true;
  options.connect_timeout = 400ms;
  const auto waiting = std::chrono::steady_clock::now();
  CHECK(absl::IsUnavailable(Client::Connect(address, options).status()));
  CHECK(std::chrono::steady_clock::now() - waiting >= 350ms);
}

}  // namespace
}  // namespace mnemo::client
