// Sparse attention offloaded to a memory service: the tokens and logprobs of the worker's own placement, bit
// by bit, also when the service dies, hangs or is full.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "devices/transport/attachment_decorators.h"
#include "server/memory/attached_client.h"
#include "server/memory_service/service_fixture.h"
#include "server/memory_service/testing/late_service.h"
#include "server/worker/engine_fixture.h"
#include "tests/support/eventually.h"

namespace mnemo::worker {
namespace {

using mnemo::testing::Eventually;
using M = memory::AttentionSettings::Method;
using P = memory::AttentionSettings::Placement;
using devices::KvType;
using memory_service::FaultOf;
using memory_service::Service;

std::vector<EngineRequest> Requests(P placement) {
  std::mt19937 random(22);
  std::vector<EngineRequest> requests;
  for (uint64_t number = 0; number < 20; ++number) {
    EngineRequest request;
    request.id = number;
    for (size_t i = 150 + random() % 300; i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(random() % 256));
    }
    request.max_tokens = static_cast<int32_t>(20 + random() % 80);
    request.logprobs = 1;
    request.sampling.temperature = number % 2 == 0 ? 0.0f : 1.2f;
    request.sampling.seed = number;
    memory::AttentionSettings& attention = request.attention;
    attention.method = std::vector<M>{M::kTokenTopk, M::kCascade, M::kPageBound, M::kBlockMean}[number % 4];
    attention.keep_first = static_cast<int>(random() % 20);
    attention.token_budget = attention.keep_first + 64 + static_cast<int>(random() % 60);
    attention.reuse_interval = std::vector<int>{1, 1, 4}[random() % 3];
    attention.key_bits = number % 4 == 0 ? std::vector<int>{2, 4, 8}[random() % 3] : 2;
    attention.first_stage_tokens = 2 * attention.token_budget;
    attention.placement = placement;
    requests.push_back(std::move(request));
  }
  return requests;
}

FixtureOptions Options(Service* service) {
  FixtureOptions options;
  options.device = "cpu";
  options.threads = 2;
  options.engine.max_batch_rows = 64;
  options.engine.max_running = 8;
  options.engine.max_waiting = 64;
  options.engine.kv_pages = 100;
  if (service != nullptr) options.memory_address = service->address();
  return options;
}

const std::vector<EngineResult>& Inline(KvType kv_type) {
  static std::map<KvType, std::vector<EngineResult>> results;
  std::vector<EngineResult>& made = results[kv_type];
  if (made.empty()) {
    FixtureOptions options = Options(nullptr);
    options.kv_type = kv_type;
    EngineFixture fixture(options);
    for (EngineRequest& request : Requests(P::kInline)) made.push_back(fixture.Run(request));
  }
  return made;
}

void SubmitAll(EngineFixture* fixture, P placement, uint32_t attempt) {
  for (EngineRequest& request : Requests(placement)) {
    request.attempt = attempt;
    const absl::Status status = fixture->engine().Submit(std::move(request));
    REQUIRE(status.ok());
  }
}

// Returns how many requests went on in the worker.
int CheckAll(EngineFixture* fixture, uint32_t attempt) {
  const std::vector<EngineResult>& wanted = Inline(fixture->kv_type());
  int fallbacks = 0;
  for (uint64_t id = 0; id < wanted.size(); ++id) {
    CAPTURE(id);
    const EngineResult result = fixture->sink().Wait(id, attempt);
    CHECK(result.broken == "");
    CHECK(result.last.status.ToString() == "OK");
    CHECK(SameTokens(result.tokens, wanted[id].tokens));
    fallbacks += result.last.memory_fallbacks;
  }
  CHECK(fixture->engine().Stats().kv_pages_used == 0);
  CHECK(fixture->engine().Stats().memory.inline_indexes == 0);
  CHECK(fixture->engine().Stats().memory.inline_bytes == 0);
  CHECK(fixture->engine().Stats().memory.service_indexes == 0);
  return fallbacks;
}

TEST_CASE("offloaded and in the worker: the same tokens, and the steps name their devices") {
  Service service;
  EngineFixture fixture(Options(&service));
  SubmitAll(&fixture, P::kMemoryService, 0);
  CHECK(CheckAll(&fixture, 0) == 0);
  const memory::PipelineStats stats = fixture.engine().Stats().memory;
  CHECK(stats.service_attached);
  CHECK(stats.round_trips.count > 0);
  CHECK(stats.bytes_to_service > 0);
  CHECK(stats.bytes_from_service > 0);
  const EngineResult result = fixture.sink().Wait(0, 0);
  REQUIRE(result.last.memory_steps.size() == 4);
  for (const memory::MemoryStepStat& step : result.last.memory_steps) {
    CHECK(step.method == "token_topk");
    CHECK(step.device ==
          (step.step == memory::MemoryStepKind::kApply ? "cpu0" : service.plane().device_name()));
    CHECK(step.count > 0);
    CHECK(step.bytes > 0);
  }
  CHECK(Eventually([&] { return service.plane().Stats().indexes == 0; }));
}

TEST_CASE("a service that dies at a random moment costs no token, and is attached again") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  Service service;
  EngineFixture fixture(Options(&service));
  for (uint32_t attempt = 0; attempt < 20 / MNEMO_TEST_REDUCTION; ++attempt) {
    CAPTURE(attempt);
    REQUIRE(Eventually([&] { return fixture.engine().Stats().memory.service_attached; }));
    SubmitAll(&fixture, P::kAny, attempt);
    fixture.sink().WaitForTokens(random() % 20, random() % 30, attempt);
    service.Stop();
    CheckAll(&fixture, attempt);
    service.Start();
  }
  CHECK(fixture.engine().Stats().memory.fallbacks.at("service_lost") > 0);
}

// Every other schedule with K and V of 8 bits. 20 schedules (fewer under a sanitizer, each kind of fault
// once), or as many as MNEMO_FAULT_SCHEDULES says.
TEST_CASE("seeded faults of the link: dropped, stalled, garbage, full, failed; no wrong token") {
  const char* const wanted = std::getenv("MNEMO_FAULT_SCHEDULES");
  const int schedules = wanted == nullptr ? 20 / MNEMO_TEST_REDUCTION : std::stoi(wanted);
  Service service;
  uint64_t fallbacks = 0;
  for (int schedule = 0; schedule < schedules; ++schedule) {
    CAPTURE(schedule);
    std::mt19937 random(static_cast<uint32_t>(schedule));
    std::atomic<uint64_t> links = 0;
    FixtureOptions options = Options(&service);
    options.kv_type = KvTypeOf(schedule);
    options.wrap_attachment = [&](std::unique_ptr<transport::MemoryAttachment> link) {
      const uint64_t number = links.fetch_add(1);
      transport::FaultPlan plan = FaultOf(schedule, number, 2000);
      return transport::MakeFaultyAttachment(std::move(link), plan);
    };
    EngineFixture fixture(options);
    SubmitAll(&fixture, P::kAny, 0);
    CheckAll(&fixture, 0);
    for (const auto& [reason, count] : fixture.engine().Stats().memory.fallbacks) fallbacks += count;
  }
  CHECK(fallbacks > 0);
  CHECK(Eventually([&] { return service.plane().Stats().indexes == 0; }));
}

TEST_CASE("a device that is late, whose memory nobody else can read: the same tokens") {
  for (const memory_service::testing::DeviceOptions& device :
       {memory_service::testing::DeviceOptions{},
        memory_service::testing::DeviceOptions{{"delay_us", "100"}, {"burst_us", "150"}, {"event", "1"}}}) {
    Service service(memory_service::testing::LateDevice(device));
    EngineFixture fixture(Options(&service));
    SubmitAll(&fixture, P::kMemoryService, 0);
    CHECK(CheckAll(&fixture, 0) == 0);
    CHECK(Eventually([&] { return service.plane().Stats().indexes == 0; }));
  }
}

TEST_CASE("a device that fails, hangs or loses its memory costs no token") {
  uint64_t failures = 0;
  for (int schedule = 0; schedule < 8 / MNEMO_TEST_REDUCTION; ++schedule) {
    CAPTURE(schedule);
    Service service(
        memory_service::testing::LateDevice(memory_service::testing::DeviceFaultOf(schedule, 300)));
    FixtureOptions options = Options(&service);
    options.kv_type = KvTypeOf(schedule);
    EngineFixture fixture(options);
    SubmitAll(&fixture, P::kAny, 0);
    failures += static_cast<uint64_t>(CheckAll(&fixture, 0));
    CHECK(Eventually([&] { return service.plane().Stats().indexes == 0; }));
  }
  CHECK(failures > 0);
}

TEST_CASE("a sequence shares the records of an open one with the same beginning") {
  for (const P placement : {P::kInline, P::kMemoryService}) {
    Service service;
    EngineFixture fixture(Options(&service));
    EngineRequest first = Requests(placement)[0];
    first.sampling.temperature = 0;
    first.max_tokens = 400;
    EngineRequest second = first;
    second.id = 1;
    second.max_tokens = 30;
    REQUIRE(fixture.engine().Submit(first).ok());
    fixture.sink().WaitForTokens(first.id, 5);
    const EngineResult shared = fixture.Run(second);
    const EngineResult whole = fixture.sink().Wait(first.id);
    const auto prepared = [](const EngineResult& result) {
      uint64_t tokens = 0;
      for (const memory::MemoryStepStat& step : result.last.memory_steps) {
        if (step.step == memory::MemoryStepKind::kPrepare) tokens += step.count;
      }
      return tokens;
    };
    CHECK(SameTokens(shared.tokens, {whole.tokens.begin(), whole.tokens.begin() + 30}));
    // Records count for each of two layers and two heads; the prompt has at least two complete pages.
    CHECK(prepared(whole) >= 4 * 128);
    CHECK(prepared(shared) <= 4 * 64);
  }
}

TEST_CASE("a full service: refused when it was asked for, otherwise in the worker and counted") {
  memory_service::DataPlane::Options options;
  options.memory_bytes = 48 << 10;
  options.max_owners = 1;
  Service service(options);
  EngineFixture fixture(Options(&service));
  SubmitAll(&fixture, P::kAny, 0);
  CHECK(CheckAll(&fixture, 0) > 0);
  CHECK(fixture.engine().Stats().memory.fallbacks.at("service_full") > 0);
  EngineRequest request = Requests(P::kMemoryService)[0];
  request.attempt = 1;
  request.max_tokens = 500;
  request.attention.key_bits = 8;
  const EngineResult refused = fixture.Run(request);
  CHECK(refused.last.status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(refused.last.status.message()), Catch::Contains("attention.placement"));
  CHECK(refused.last.refused);
  CHECK(refused.tokens.empty());
  // A request of which the client has had output is never refused.
  const uint64_t full = fixture.engine().Stats().memory.fallbacks.at("service_full");
  request.attempt = 2;
  request.begun = true;
  request.max_tokens = 450;
  const EngineResult begun = fixture.Run(request);
  CHECK(begun.last.status.ToString() == "OK");
  CHECK(begun.last.memory_fallbacks == 1);
  CHECK(fixture.engine().Stats().memory.fallbacks.at("service_full") == full + 1);
}

TEST_CASE("what memory processing cost is told while a request runs") {
  EngineFixture fixture(Options(nullptr));
  EngineRequest request = Requests(P::kInline)[0];
  request.sampling.temperature = 0;
  request.max_tokens = 40;
  const EngineResult result = fixture.Run(request);
  std::vector<uint64_t> applied;
  for (const std::vector<memory::MemoryStepStat>& steps : result.memory_steps) {
    for (const memory::MemoryStepStat& step : steps) {
      if (step.step == memory::MemoryStepKind::kApply) applied.push_back(step.count);
    }
  }
  CHECK(applied.size() >= 3);  // after 16 tokens, after 32, at the end
  CHECK(std::is_sorted(applied.begin(), applied.end()));
}

TEST_CASE("no service: refused when it was asked for") {
  EngineFixture fixture(Options(nullptr));
  const EngineResult refused = fixture.Run(Requests(P::kMemoryService)[0]);
  CHECK(refused.last.status.code() == absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace mnemo::worker
