// The whole front end in this process, with a real gRPC server and client; only the workers are the test's.
#include "server/frontend/front_end.h"

#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <future>
#include <optional>
#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "mnemo/v1/admin.grpc.pb.h"
#include "mnemo/v1/generation.grpc.pb.h"
#include "server/frontend/status_mapping.h"
#include "server/frontend/streams.h"
#include "server/frontend/testing/fake_dispatcher.h"
#include "server/frontend/testing/tiny_served_model.h"
#include "server/model/text_stream.h"
#include "tests/support/eventually.h"

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;
using grpc::StatusCode;
using internal::v1::Finish;
using mnemo::testing::Eventually;
using testing::FakeDispatcher;
using testing::Ids;
namespace health = grpc::health::v1;

const ServedModel& Model() {
  static const auto* model = testing::LoadTiny().release();
  return *model;
}

// Server and client.
struct Fixture {
  explicit Fixture(const config::Config& settings = {}, const attribution::EnergyMonitor* energy = nullptr) {
    FrontEnd::Options options{settings, "0-test", energy};
    options.config.server.listen = "127.0.0.1:0";
    auto started = FrontEnd::Start(std::move(options), &Model(), dispatcher.get(), &metrics);
    MNEMO_CHECK(started.ok());
    front_end = *std::move(started);
    // Little room between the two, so that a client that does not read is noticed soon.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16384);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    channel = grpc::CreateCustomChannel(front_end->address(), grpc::InsecureChannelCredentials(), arguments);
    generation = v1::Generation::NewStub(channel);
    admin = v1::Admin::NewStub(channel);
    health_stub = health::Health::NewStub(channel);
  }
  ~Fixture() {
    front_end->Shutdown();
    dispatcher.reset();
  }
  v1::StatusResponse Status() {
    grpc::ClientContext context;
    v1::StatusResponse response;
    MNEMO_CHECK(admin->Status(&context, {}, &response).ok());
    return response;
  }
  health::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    grpc::ClientContext context;
    health::HealthCheckRequest request;
    request.set_service(service);
    health::HealthCheckResponse response;
    const grpc::Status status = health_stub->Check(&context, request, &response);
    return status.ok() ? response.status() : health::HealthCheckResponse::UNKNOWN;
  }

  telemetry::Metrics metrics;
  std::unique_ptr<FrontEnd> front_end;
  std::unique_ptr<FakeDispatcher> dispatcher = std::make_unique<FakeDispatcher>();
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Generation::Stub> generation;
  std::unique_ptr<v1::Admin::Stub> admin;
  std::unique_ptr<health::Health::Stub> health_stub;
};

// One stream, read by the test.
struct Call {
  Call(Fixture* fixture, const v1::GenerateRequest& request, std::chrono::milliseconds timeout = {}) {
    if (timeout.count() > 0) context.set_deadline(std::chrono::system_clock::now() + timeout);
    reader = fixture->generation->Generate(&context, request);
  }
  bool Next() { return reader->Read(&message); }
  // Reads to the end; the status of the call.
  grpc::Status Rest() {
    while (Next()) {
      ++messages;
      MNEMO_CHECK(model::IsValidUtf8(message.delta().text()));
      text += message.delta().text();
      for (const v1::Token& token : message.delta().tokens()) ids.push_back(token.id());
      if (message.has_final()) final = message.final();
    }
    return reader->Finish();
  }
  std::string Trailer(const std::string& key) const {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto at = trailers.find(key);
    return at == trailers.end() ? "" : std::string(at->second.data(), at->second.size());
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  v1::GenerateResponse message;
  int messages = 0;
  std::string text;
  std::vector<int32_t> ids;
  v1::Final final;
};

v1::GenerateRequest Prompt(const std::string& text = "hi") {
  v1::GenerateRequest request;
  request.set_prompt(text);
  request.mutable_sampling()->set_max_tokens(100);
  return request;
}

TEST_CASE("a status keeps its code on its way to gRPC, and its message becomes valid UTF-8") {
  CHECK(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status bad = ToGrpcStatus(absl::InvalidArgumentError("a\xff\xfe z"));
  CHECK(bad.error_code() == StatusCode::INVALID_ARGUMENT);
  CHECK(model::IsValidUtf8(bad.error_message()));
}

TEST_CASE("status shows the memory services") {
  Fixture fixture;
  const v1::StatusResponse status = fixture.Status();
  REQUIRE(status.memory_services_size() == 1);
  const v1::StatusResponse::MemoryService& service = status.memory_services(0);
  CHECK(service.name() == "memory0");
  CHECK(service.address() == "unix:/run/memory0.sock");
  CHECK(service.state() == v1::StatusResponse::STATE_READY);
  CHECK(service.device() == "card-model");
  CHECK(service.simulated_time());
  CHECK(service.pid() == 7);
  CHECK(service.restarts() == 2);
  CHECK(service.bytes_used() == 1000);
  CHECK(service.bytes_total() == 4000);
  CHECK(service.indexes() == 3);
  const std::string metrics = fixture.metrics.Expose();
  CHECK_THAT(metrics,
             Contains("mnemo_memory_service_device_channel_stall_cycles_total{device=\"memory0:card-model\","
                      "cause=\"memory\",channel=\"1\"} 12"));
  CHECK_THAT(metrics, !Contains("of_tomorrow"));
}

TEST_CASE("the end of a request tells what its memory processing cost") {
  Fixture fixture;
  Call call(&fixture, Prompt());
  const auto request = fixture.dispatcher->Wait(0);
  REQUIRE(request != nullptr);
  request->Tokens({65});
  internal::v1::Event last;
  last.set_first_index(1);
  last.add_token_ids(66);
  last.mutable_finish()->set_reason(internal::v1::Finish::REASON_LENGTH);
  internal::v1::MemoryStep* step = last.mutable_summary()->add_memory_steps();
  step->set_step(2);
  step->set_method("token_topk");
  step->set_device("memory0:cpu");
  step->set_time_ns(1'500'000'000);
  step->set_bytes_moved(10);
  step->set_count(20);
  request->Send(last);
  request->Done(absl::OkStatus());
  CHECK(call.Rest().ok());
  REQUIRE(call.final.memory_steps_size() == 1);
  const v1::MemoryStep& told = call.final.memory_steps(0);
  CHECK(told.step() == v1::MemoryStep::STEP_RELEVANCY);
  CHECK(told.method() == "token_topk");
  CHECK(told.device() == "memory0:cpu");
  CHECK(told.time().seconds() == 1);
  CHECK(told.time().nanos() == 500'000'000);
  CHECK(told.bytes_moved() == 10);
  CHECK(told.count() == 20);
}

TEST_CASE("memory processing of all attempts is summed, of each attempt the last word counts") {
  Fixture fixture;
  Call call(&fixture, Prompt());
  const auto request = fixture.dispatcher->Wait(0);
  REQUIRE(request != nullptr);
  int index = 0;
  const auto send = [&](uint32_t attempt, std::vector<std::tuple<int, const char*, uint64_t>> steps,
                        bool last) {
    internal::v1::Event event;
    event.set_attempt(attempt);
    event.set_first_index(index++);
    event.add_token_ids(66);
    for (const auto& [number, device, count] : steps) {
      internal::v1::MemoryStep* step = event.mutable_summary()->add_memory_steps();
      step->set_step(number);
      step->set_method("token_topk");
      step->set_device(device);
      step->set_time_ns(2 * count);
      step->set_bytes_moved(3 * count);
      step->set_count(count);
    }
    if (last) event.mutable_finish()->set_reason(internal::v1::Finish::REASON_LENGTH);
    request->Send(event);
  };
  send(0, {{2, "memory0:cpu", 5}, {4, "cpu0", 10}}, false);
  send(0, {}, false);
  send(0, {{2, "memory0:cpu", 50}, {4, "cpu0", 100}}, false);
  send(1, {{4, "cpu0", 1000}}, false);
  send(3, {{2, "cpu0", 500}, {4, "cpu0", 10000}}, true);
  request->Done(absl::OkStatus());
  CHECK(call.Rest().ok());
  std::vector<std::tuple<int, std::string, uint64_t>> told;
  for (const v1::MemoryStep& step : call.final.memory_steps()) {
    told.emplace_back(step.step(), step.device(), step.count());
    CHECK(static_cast<uint64_t>(step.time().nanos()) == 2 * step.count());
    CHECK(step.bytes_moved() == 3 * step.count());
  }
  CHECK(told == std::vector<std::tuple<int, std::string, uint64_t>>{
                    {2, "memory0:cpu", 50}, {2, "cpu0", 500}, {4, "cpu0", 11100}});
}

TEST_CASE("Started comes before a worker does anything, then tokens, then Final") {
  Fixture fixture;
  v1::GenerateRequest request = Prompt();
  request.set_request_id("mine");
  Call call(&fixture, request);
  REQUIRE(call.Next());
  REQUIRE(call.message.has_started());
  CHECK(call.message.started().request_id() == "mine");
  CHECK(call.message.started().prompt_token_count() == 2);
  CHECK(call.message.started().model() == Model().name);
  const uint64_t seed = call.message.started().seed();
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  CHECK(worker->submit.sampling().seed() == seed);
  CHECK_FALSE(worker->deadline.has_value());
  CHECK(fixture.Status().requests_running() == 1);
  CHECK(fixture.Status().tokens_in_flight() == 102);
  worker->Tokens(Ids("h"));
  REQUIRE(call.Next());
  CHECK(call.message.delta().text() == "h");
  CHECK(call.message.delta().tokens(0).piece() == "h");
  worker->Finish(Ids("ello"), Finish::REASON_LENGTH, 3);
  CHECK(call.Rest().ok());
  CHECK(call.text == "ello");
  CHECK(call.final.finish_reason() == v1::FINISH_REASON_LENGTH);
  CHECK(call.final.usage().completion_tokens() == 5);
  CHECK(call.final.usage().prompt_tokens() == 2);
  CHECK(call.final.usage().cached_prompt_tokens() == 1);
  CHECK(call.final.replays() == 3);
  CHECK(call.final.timing().has_time_to_first_token());
  CHECK(fixture.Status().tokens_in_flight() == 0);
  const std::string metrics = fixture.metrics.Expose();
  CHECK_THAT(metrics, Contains("mnemo_generation_tokens_total 5"));
  CHECK_THAT(metrics, Contains("mnemo_time_to_first_token_seconds_count 1"));
  CHECK_THAT(metrics, Contains("mnemo_inter_token_latency_seconds_count 4"));
  CHECK_THAT(metrics, Contains("fake-numerics"));
}

TEST_CASE("without meters no surface has energy") {
  Fixture fixture;
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  worker->Finish(Ids("h"), Finish::REASON_LENGTH);
  CHECK(call.Rest().ok());
  CHECK_FALSE(call.final.has_energy());
  const std::string metrics = fixture.metrics.Expose();
  CHECK_THAT(metrics, !Contains("energy") && !Contains("joules") && !Contains("watts"));
  grpc::ClientContext context;
  v1::EnergyResponse response;
  const grpc::Status status = fixture.admin->Energy(&context, {}, &response);
  CHECK(status.error_code() == StatusCode::UNIMPLEMENTED);
  CHECK_THAT(status.error_message(), Contains("energy.model"));
}

TEST_CASE("with a meter Final, metrics and Admin.Energy have the joules of a request") {
  class Meter : public energy::EnergySource {
   public:
    void Sample(const energy::Round&, std::vector<energy::EnergyInterval>* intervals) override {
      intervals->push_back({device, end_ns - 1'000'000'000, end_ns, 40});
      end_ns += 1'000'000'000;
    }
    std::vector<energy::MeterState> States() const override {
      energy::MeterState state;
      state.device = device;
      state.is_up = true;
      state.watts = 40;
      state.dropped[static_cast<int>(energy::DropReason::kGap)] = 2;
      return {state};
    }
    const energy::MeteredDevice device = {energy::DeviceKind::kCpu, 0, "rapl"};
    int64_t end_ns = 1'000'000'000;
  };
  int64_t now_ns = 0;
  attribution::MonitorOptions options;
  options.source = std::make_unique<Meter>();
  options.now_ns = [&] { return now_ns; };
  // The machine's busy time in the test's real time would give a part of the joules to other processes.
  options.cpu_times = [] { return Unavailable("none"); };
  options.ledger.idle_watts = [](const energy::MeteredDevice&) { return 10.0; };
  attribution::EnergyMonitor monitor(std::move(options));
  Fixture fixture({}, &monitor);
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  // The fake dispatcher's events have the number 0 and no observer.
  monitor.BeginRequest(0, "mine", "token_topk");
  const attribution::WorkSpan span = {0, attribution::EnergyStep::kDecode, {}, 0, 1'000'000'000, 1e9};
  monitor.AddSpans({&span, 1});
  now_ns = 1'000'000'000;
  monitor.Sample();
  grpc::ClientContext context;
  v1::EnergyResponse response;
  const grpc::Status told = fixture.admin->Energy(&context, {}, &response);
  INFO(told.error_message());
  REQUIRE(told.ok());
  REQUIRE(response.devices_size() == 1);
  CHECK(response.devices(0).device() == "cpu0");
  CHECK(response.devices(0).source() == "rapl");
  CHECK(response.devices(0).meter_up());
  CHECK(response.devices(0).watts() == 40);
  CHECK(response.devices(0).joules() == Approx(40));
  CHECK(response.devices(0).request_joules() == Approx(40));
  CHECK(response.devices(0).idle_watts() == 10);
  CHECK_FALSE(response.devices(0).idle_watts_measured());
  REQUIRE(response.requests_size() == 1);
  CHECK(response.requests(0).request_id() == "mine");
  CHECK(response.requests(0).joules() == Approx(40));
  CHECK(response.requests(0).age().seconds() == 1);
  CHECK(response.steps_size() == static_cast<int>(attribution::kEnergySteps));
  CHECK(response.steps(1).joules() == Approx(30));

  worker->Finish(Ids("hello"), Finish::REASON_LENGTH);
  CHECK(call.Rest().ok());
  CHECK(call.final.energy().joules() == Approx(40));
  CHECK(call.final.energy().devices(0).source() == "rapl");
  monitor.EndRequest(0, 5);
  now_ns = 3'000'000'000;
  monitor.Sample();
  const std::string metrics = fixture.metrics.Expose();
  for (const char* line :
       {"mnemo_energy_joules_total{device=\"cpu0\",kind=\"cpu\",source=\"rapl\"} 80\n",
        "mnemo_energy_use_joules_total{device=\"cpu0\",use=\"request\"} 40\n",
        "mnemo_energy_use_joules_total{device=\"cpu0\",use=\"overhead\"} 30\n",
        "mnemo_energy_use_joules_total{device=\"cpu0\",use=\"idle\"} 10\n",
        "mnemo_energy_use_joules_total{device=\"cpu0\",use=\"other\"} 0\n",
        "mnemo_step_energy_joules_total{device=\"cpu0\",method=\"token_topk\",step=\"decode\"} 30\n",
        "mnemo_step_energy_joules_total{device=\"cpu0\",method=\"token_topk\",step=\"idle\"} 10\n",
        "mnemo_power_watts{device=\"cpu0\"} 40\n",
        "mnemo_idle_power_watts{device=\"cpu0\",origin=\"configured\"} 10\n",
        "mnemo_energy_meter_up{device=\"cpu0\",source=\"rapl\"} 1\n",
        "mnemo_energy_samples_dropped_total{device=\"cpu0\",reason=\"gap\"} 2\n",
        "mnemo_request_energy_joules_sum 40\n", "mnemo_request_energy_joules_count 1\n",
        "mnemo_output_token_energy_joules_sum 8\n"}) {
    CHECK_THAT(metrics, Contains(line));
  }
  CHECK_THAT(metrics, !Contains("mine"));
#ifdef MNEMO_PROMTOOL
  FILE* promtool = ::popen(MNEMO_PROMTOOL " check metrics", "w");
  REQUIRE(promtool != nullptr);
  REQUIRE(std::fwrite(metrics.data(), 1, metrics.size(), promtool) == metrics.size());
  CHECK(::pclose(promtool) == 0);
#endif
}

TEST_CASE("a stop string over tokens ends the stream and frees the worker") {
  Fixture fixture;
  v1::GenerateRequest request = Prompt();
  request.mutable_sampling()->add_stop("lo w");
  Call call(&fixture, request);
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  for (const int32_t id : Ids("hello world")) worker->Tokens({id});
  CHECK(call.Rest().ok());
  CHECK(call.text == "hel");
  CHECK(call.ids == Ids("hello w"));
  CHECK(call.final.finish_reason() == v1::FINISH_REASON_STOP);
  CHECK(call.final.stop_matched() == "lo w");
  CHECK(worker->is_cancelled());
}

TEST_CASE("bytes that are not UTF-8 arrive as valid text") {
  Fixture fixture;
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  for (const int32_t id : {0xF0, 0x9F, 0x61, 0xFF, 0xC3}) worker->Tokens({id});
  worker->Finish({0xA9, 0xE2}, Finish::REASON_LENGTH);
  CHECK(call.Rest().ok());
  CHECK(call.text ==
        "\xEF\xBF\xBD"
        "a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD");
}

TEST_CASE("deltas merge while a reader is slow") {
  Fixture fixture;
  v1::GenerateRequest request = Prompt();
  request.mutable_sampling()->set_max_tokens(1000);
  Call call(&fixture, request);
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  // Much faster than writes can be.
  for (int i = 0; i < 1000; ++i) worker->Tokens({'a'});
  worker->Finish({}, Finish::REASON_LENGTH);
  CHECK(call.Rest().ok());
  CHECK(call.text == std::string(1000, 'a'));
  CHECK(call.messages < 1000);
}

// Sends tokens with all their alternatives until the request is cancelled.
bool FloodUntilCancelled(FakeDispatcher::Request* worker) {
  for (int i = 0; i < 200'000 && !worker->is_cancelled(); ++i) {
    internal::v1::Event event;
    event.set_first_index(i);
    event.add_token_ids('a');
    internal::v1::TokenDetail* detail = event.add_details();
    detail->set_has_logprob(true);
    for (int k = 0; k < 20; ++k) {
      detail->add_alternative_ids(k);
      detail->add_alternative_logprobs(-1);
    }
    worker->Send(event);
    if (i % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return worker->is_cancelled();
}

TEST_CASE("a reader that takes nothing is cancelled by the count of waiting tokens") {
  config::Config config;
  config.server.slow_reader_max_tokens = 5000;
  Fixture fixture(config);
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  CHECK(FloodUntilCancelled(worker.get()));
  // Others are served meanwhile, and what it held is free although it reads nothing.
  CHECK(Eventually([&] { return fixture.Status().requests_running() == 0; }));
  CHECK(Eventually([&] { return fixture.front_end->live_streams() == 0; }));
  CHECK(call.Rest().error_code() == StatusCode::CANCELLED);
}

TEST_CASE("a reader that takes nothing is cancelled by the time of a write") {
  config::Config config;
  config.server.slow_reader_timeout_ms = 200;
  Fixture fixture(config);
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  CHECK(FloodUntilCancelled(worker.get()));
  CHECK(Eventually([&] { return fixture.front_end->live_streams() == 0; }));
  CHECK(call.Rest().error_code() == StatusCode::CANCELLED);
}

TEST_CASE("cancelling and deadlines reach the worker") {
  Fixture fixture;
  SECTION("running") {
    Call call(&fixture, Prompt());
    const auto worker = fixture.dispatcher->Wait(0);
    REQUIRE(worker != nullptr);
    call.context.TryCancel();
    CHECK(call.Rest().error_code() == StatusCode::CANCELLED);
    CHECK(Eventually([&] { return worker->is_cancelled(); }));
  }
  SECTION("deadline") {
    Call call(&fixture, Prompt(), std::chrono::milliseconds(200));
    const auto worker = fixture.dispatcher->Wait(0);
    REQUIRE(worker != nullptr);
    CHECK(worker->deadline.has_value());
    CHECK(call.Rest().error_code() == StatusCode::DEADLINE_EXCEEDED);
    CHECK(Eventually([&] { return worker->is_cancelled(); }));
  }
  CHECK(Eventually([&] { return fixture.front_end->live_streams() == 0; }));
  CHECK(fixture.Status().requests_running() == 0);
}

TEST_CASE("a request that is cancelled while it waits never starts") {
  config::Config config;
  config.limits.max_running = 1;
  Fixture fixture(config);
  Call first(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  {
    Call second(&fixture, Prompt());
    REQUIRE(second.Next());
    CHECK(second.message.has_started());
    CHECK(fixture.Status().requests_queued() == 1);
    second.context.TryCancel();
    CHECK(second.Rest().error_code() == StatusCode::CANCELLED);
  }
  CHECK(Eventually([&] { return fixture.Status().requests_queued() == 0; }));
  worker->Finish(Ids("a"), Finish::REASON_LENGTH);
  CHECK(first.Rest().ok());
  CHECK(fixture.dispatcher->count() == 1);
}

TEST_CASE("a request that names no max_tokens counts as a worker reserves for it") {
  config::Config config;
  config.engine.reserve_tokens = 7;
  config.limits.max_tokens_in_flight = 2 * (2 + 7);
  Fixture fixture(config);
  v1::GenerateRequest open = Prompt();
  open.mutable_sampling()->clear_max_tokens();
  Call first(&fixture, open);
  REQUIRE(first.Next());
  // Before the second is there: the server may take calls that come together in either order.
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  Call second(&fixture, open);
  REQUIRE(second.Next());
  CHECK(fixture.Status().tokens_in_flight() == 18);
  Call third(&fixture, open);
  CHECK(third.Rest().error_code() == StatusCode::RESOURCE_EXHAUSTED);
  CHECK(worker->submit.max_tokens() == Model().context_tokens - 2);
  worker->Finish(Ids("hello"), Finish::REASON_LENGTH);
  CHECK(first.Rest().ok());
  CHECK(fixture.Status().tokens_in_flight() == 9);
}

TEST_CASE("overload is refused with a pause") {
  config::Config config;
  config.limits.max_running = 1;
  config.limits.max_queued = 0;
  config.limits.retry_pushback_ms = 77;
  config.limits.max_tokens_in_flight = 1000;
  Fixture fixture(config);
  Call first(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  Call second(&fixture, Prompt());
  const grpc::Status refused = second.Rest();
  CHECK(refused.error_code() == StatusCode::RESOURCE_EXHAUSTED);
  CHECK(second.messages == 0);
  CHECK(second.Trailer("grpc-retry-pushback-ms") == "77");
  v1::GenerateRequest large = Prompt();
  large.mutable_sampling()->set_max_tokens(1000);
  Call third(&fixture, large);
  CHECK_THAT(third.Rest().error_message(), Contains("max_tokens_in_flight"));
  CHECK(third.Trailer("grpc-retry-pushback-ms") == "-1");
  CHECK_THAT(fixture.metrics.Expose(), Contains("mnemo_requests_rejected_total{reason=\"queue_full\"} 1"));
  worker->Finish({}, Finish::REASON_LENGTH);
  CHECK(first.Rest().ok());
}

TEST_CASE("a worker's error is the stream's status, behind the tokens that were made") {
  Fixture fixture;
  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  worker->Tokens(Ids("ab"));
  worker->Done(absl::InternalError("two workers died \xff"), 1);
  const grpc::Status status = call.Rest();
  CHECK(status.error_code() == StatusCode::INTERNAL);
  CHECK_THAT(status.error_message(), Contains("two workers died"));
  CHECK(call.text == "ab");
  CHECK_THAT(fixture.metrics.Expose(), Contains("INTERNAL"));
}

TEST_CASE("a tokenization of megabytes is done aside") {
  Fixture fixture;
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_text(std::string(1 << 20, 'x'));
  v1::TokenizeResponse response;
  CHECK(fixture.generation->Tokenize(&context, request, &response).ok() == false);  // over the client's 4 MiB
  grpc::ClientContext again;
  request.set_text(std::string(100'000, 'x'));
  CHECK(fixture.generation->Tokenize(&again, request, &response).ok());
  CHECK(response.ids_size() == 100'000);
  Call call(&fixture, Prompt(std::string(60'000, 'x')));
  CHECK(call.Rest().error_code() == StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("health does not flap during a restart that is shorter than the grace") {
  using Response = health::HealthCheckResponse;
  config::Config settings;
  settings.server.health_grace_ms = 300;
  Fixture fixture(settings);
  CHECK(fixture.Health("ready") == Response::SERVING);
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  request.set_service("ready");
  auto watch = fixture.health_stub->Watch(&context, request);
  Response state;
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == Response::SERVING);
  fixture.dispatcher->SetReadyWorkers(0);
  fixture.dispatcher->SetReadyWorkers(1);
  // Past the grace of the loss that is over, the state is still the first one: the next change is the drain.
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  CHECK(fixture.Health("ready") == Response::SERVING);
  grpc::ClientContext drain_context, resume_context;
  v1::DrainResponse drained;
  CHECK(fixture.admin->Drain(&drain_context, {}, &drained).ok());
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == Response::NOT_SERVING);
  v1::ResumeResponse resumed;
  CHECK(fixture.admin->Resume(&resume_context, {}, &resumed).ok());
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == Response::SERVING);
  // A loss that lasts is told without any further call.
  fixture.dispatcher->SetReadyWorkers(0);
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == Response::NOT_SERVING);
  context.TryCancel();
}

TEST_CASE("health tells live apart from ready") {
  using Response = health::HealthCheckResponse;
  config::Config settings;
  settings.server.health_grace_ms = 0;
  Fixture fixture(settings);
  fixture.dispatcher->SetReadyWorkers(0);
  CHECK(fixture.Health("ready") == Response::NOT_SERVING);
  CHECK(fixture.Health("live") == Response::SERVING);
  fixture.dispatcher->SetReadyWorkers(1);
  fixture.front_end->SetLive(false);
  CHECK(fixture.Health("ready") == Response::SERVING);
  CHECK(fixture.Health("live") == Response::NOT_SERVING);
}

TEST_CASE("each loop of the front end turns when it is asked to") {
  Fixture fixture;
  const auto count = [&](const std::string& name) {
    for (const dispatch::LoopTurns& loop : fixture.front_end->AskForTurns()) {
      if (loop.name == name) return loop.count;
    }
    FAIL(name);
    return uint64_t{0};
  };
  for (const char* name : {"gRPC", "accepting of connections"}) {
    const uint64_t before = count(name);
    CHECK(mnemo::testing::Eventually([&] { return count(name) >= before + 3; }));
  }
}

TEST_CASE("health follows the workers and a drain, and Watch tells each change") {
  config::Config settings;
  settings.server.health_grace_ms = 0;
  Fixture fixture(settings);
  fixture.dispatcher->SetReadyWorkers(0);
  CHECK(fixture.Health("") == health::HealthCheckResponse::NOT_SERVING);
  grpc::ClientContext context, unknown_context;
  health::HealthCheckRequest request;
  request.set_service("mnemo.v1.Generation");
  auto watch = fixture.health_stub->Watch(&context, request);
  health::HealthCheckResponse state;
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == health::HealthCheckResponse::NOT_SERVING);
  fixture.dispatcher->SetReadyWorkers(2);
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == health::HealthCheckResponse::SERVING);
  for (const char* service : {"", "mnemo.v1.Generation", "mnemo.v1.Admin"}) {
    CHECK(fixture.Health(service) == health::HealthCheckResponse::SERVING);
  }
  request.set_service("no.such");
  auto unknown = fixture.health_stub->Watch(&unknown_context, request);
  REQUIRE(unknown->Read(&state));
  CHECK(state.status() == health::HealthCheckResponse::SERVICE_UNKNOWN);
  grpc::ClientContext check_context;
  CHECK(fixture.health_stub->Check(&check_context, request, &state).error_code() == StatusCode::NOT_FOUND);

  grpc::ClientContext drain_context, resume_context;
  v1::DrainResponse drained;
  CHECK(fixture.admin->Drain(&drain_context, {}, &drained).ok());
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == health::HealthCheckResponse::NOT_SERVING);
  Call refused(&fixture, Prompt());
  const grpc::Status status = refused.Rest();
  CHECK(status.error_code() == StatusCode::UNAVAILABLE);
  CHECK_THAT(status.error_message(), Contains("drain"));
  v1::ResumeResponse resumed;
  CHECK(fixture.admin->Resume(&resume_context, {}, &resumed).ok());
  REQUIRE(watch->Read(&state));
  CHECK(state.status() == health::HealthCheckResponse::SERVING);
  // The open streams are ended by the shutdown, not by its deadline.
  fixture.front_end->Shutdown();
  CHECK_FALSE((watch->Read(&state) && watch->Read(&state)));
  CHECK(watch->Finish().error_code() == StatusCode::UNAVAILABLE);
}

TEST_CASE("a drain waits for what runs, then cuts the rest") {
  Fixture fixture;
  Call ends(&fixture, Prompt());
  Call stays(&fixture, Prompt());
  const auto first = fixture.dispatcher->Wait(0);
  const auto second = fixture.dispatcher->Wait(1);
  REQUIRE(second != nullptr);
  auto drain = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    v1::DrainRequest request;
    request.mutable_timeout()->set_nanos(500'000'000);
    v1::DrainResponse response;
    MNEMO_CHECK(fixture.admin->Drain(&context, request, &response).ok());
    return response;
  });
  REQUIRE(Eventually([&] { return fixture.Status().draining(); }));
  first->Finish(Ids("a"), Finish::REASON_LENGTH);
  const v1::DrainResponse response = drain.get();
  CHECK(response.finished() == 1);
  CHECK(response.cut() == 1);
  const grpc::Status statuses[] = {ends.Rest(), stays.Rest()};
  const bool first_ended = statuses[0].ok();
  CHECK(statuses[first_ended ? 0 : 1].ok());
  CHECK(statuses[first_ended ? 1 : 0].error_code() == StatusCode::UNAVAILABLE);
  CHECK(second->is_cancelled());
}

// Leaves when it is cut.
class CutStream final : public Stream {
 public:
  explicit CutStream(Streams* owner) : owner_(owner) {}
  void Sweep(std::chrono::steady_clock::time_point) override {}
  bool Cut(const absl::Status&) override {
    owner_->Remove(this, Streams::End::kCut);
    return true;
  }

 private:
  Streams* const owner_;
};

TEST_CASE("what one drain cuts has not finished for another") {
  Streams streams;
  const auto finishes = std::make_shared<CutStream>(&streams);
  streams.Add(std::make_shared<CutStream>(&streams));
  streams.Add(finishes);
  std::promise<DrainResult> patient, hasty;
  const auto now = std::chrono::steady_clock::now();
  streams.Drain(now + std::chrono::hours(1), [&](DrainResult result) { patient.set_value(result); });
  streams.Remove(finishes.get(), Streams::End::kFinished);
  streams.Drain(now, [&](DrainResult result) { hasty.set_value(result); });
  CHECK(hasty.get_future().get().cut == 1);
  const DrainResult result = patient.get_future().get();
  CHECK(result.finished == 1);
  CHECK(result.cut == 1);
}

TEST_CASE("a drain's timeout is bounded, and Resume ends a drain") {
  Fixture fixture;
  grpc::ClientContext context;
  v1::DrainRequest request;
  request.mutable_timeout()->set_seconds(-1);
  v1::DrainResponse response;
  const grpc::Status bad = fixture.admin->Drain(&context, request, &response);
  CHECK(bad.error_code() == StatusCode::INVALID_ARGUMENT);
  CHECK_THAT(bad.error_message(), Contains("timeout"));
  CHECK_FALSE(fixture.Status().draining());

  Call call(&fixture, Prompt());
  const auto worker = fixture.dispatcher->Wait(0);
  REQUIRE(worker != nullptr);
  auto drain = std::async(std::launch::async, [&] {
    grpc::ClientContext drain_context;
    v1::DrainResponse drained;
    return fixture.admin->Drain(&drain_context, {}, &drained).error_code();
  });
  REQUIRE(Eventually([&] { return fixture.Status().draining(); }));
  grpc::ClientContext resume_context;
  v1::ResumeResponse resumed;
  // The drain may not wait yet at the first one.
  CHECK(Eventually([&] {
    grpc::ClientContext again;
    MNEMO_CHECK(fixture.admin->Resume(&again, {}, &resumed).ok());
    return drain.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready;
  }));
  CHECK(drain.get() == StatusCode::ABORTED);
  worker->Finish(Ids("a"), Finish::REASON_LENGTH);
  CHECK(call.Rest().ok());
}

TEST_CASE("sessions, models and reloaded limits") {
  Fixture fixture;
  for (const auto& [id, existed] : {std::pair{"known", true}, std::pair{"other", false}}) {
    grpc::ClientContext context;
    v1::EndSessionRequest request;
    request.set_session_id(id);
    v1::EndSessionResponse response;
    CHECK(fixture.generation->EndSession(&context, request, &response).ok());
    CHECK(response.existed() == existed);
  }
  grpc::ClientContext context;
  v1::ListModelsResponse models;
  CHECK(fixture.generation->ListModels(&context, {}, &models).ok());
  REQUIRE(models.models_size() == 1);
  CHECK(models.models(0).numerics_id() == "fake-numerics");
  CHECK(models.models(0).workers_ready() == 1);
  CHECK(models.models(0).vocabulary() == 259);
  config::Config config;
  config.limits.max_tokens = 5;
  fixture.front_end->Reload(config);
  Call call(&fixture, Prompt());
  CHECK(call.Rest().error_code() == StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("a taken address is an error that names it") {
  Fixture fixture;
  FakeDispatcher dispatcher;
  FrontEnd::Options options;
  options.config.server.listen = fixture.front_end->address();
  const auto second = FrontEnd::Start(std::move(options), &Model(), &dispatcher, &fixture.metrics);
  CHECK(second.status().code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(std::string(second.status().message()), Contains(fixture.front_end->address()));
}

}  // namespace
}  // namespace mnemo::frontend
