// K and V kept in the memory service: sequences longer than the worker's own pool. Tokens and logprobs equal
// bit by bit those of a worker that has all K and V, also when the service dies, hangs or is full.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "devices/transport/attachment_decorators.h"
#include "server/memory/attached_client.h"
#include "server/memory_service/service_fixture.h"
#include "server/memory_service/testing/late_service.h"
#include "server/worker/engine_fixture.h"
#include "tests/support/eventually.h"

namespace mnemo::worker {
namespace {

using M = memory::AttentionSettings::Method;
using P = memory::AttentionSettings::Placement;
using devices::KvType;
using memory_service::FaultOf;
using memory_service::Service;
using mnemo::testing::Eventually;

constexpr int kContext = 3072;
// The pool of the worker that keeps K and V in the service: less than the longest sequence, room for two
// shares.
constexpr int kPages = 34;

std::vector<EngineRequest> Requests(P placement) {
  std::mt19937 random(33);
  std::vector<EngineRequest> requests;
  for (uint64_t number = 0; number < 8; ++number) {
    EngineRequest request;
    request.id = number;
    for (size_t i = 1300 + random() % 1200; i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(random() % 256));
    }
    request.max_tokens = static_cast<int32_t>(40 + random() % 150);
    request.logprobs = 1;
    request.sampling.temperature = number % 2 == 0 ? 0.0f : 1.2f;
    request.sampling.seed = number;
    memory::AttentionSettings& attention = request.attention;
    attention.method = std::vector<M>{M::kTokenTopk, M::kPageBound, M::kCascade, M::kBlockMean}[number % 4];
    attention.keep_first = static_cast<int>(random() % 100);
    attention.keep_last = static_cast<int>(1 + random() % 64);
    attention.token_budget = attention.keep_first + 128 + static_cast<int>(random() % 100);
    attention.reuse_interval = std::vector<int>{1, 1, 4}[random() % 3];
    attention.first_stage_tokens = 2 * attention.token_budget;
    attention.placement = placement;
    if (number == 3) {  // scores positions of its prompt, some of them as decode steps
      request.prompt_logprobs = 0;
      request.prompt_logprobs_from = static_cast<int32_t>(request.prompt.size()) - 200;
      request.decode_from = request.prompt_logprobs_from + 60;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

FixtureOptions Options(const std::string& device, Service* service) {
  FixtureOptions options;
  options.device = device;
  options.threads = 2;
  options.context_tokens = kContext;
  options.engine.max_batch_rows = 192;
  options.engine.max_running = 6;
  options.engine.max_waiting = 64;
  options.engine.kv_pages = 300;
  if (service != nullptr) {
    options.memory_address = service->address();
    options.engine.kv_pages = kPages;
    options.engine.extra_pages = 200;
  }
  return options;
}

const std::vector<EngineResult>& Wanted(const std::string& device, KvType kv_type) {
  static std::map<std::pair<std::string, KvType>, std::vector<EngineResult>> results;
  std::vector<EngineResult>& made = results[{device, kv_type}];
  if (made.empty()) {
    FixtureOptions options = Options(device, nullptr);
    options.kv_type = kv_type;
    EngineFixture fixture(options);
    for (EngineRequest& request : Requests(P::kInline)) made.push_back(fixture.Run(request));
  }
  return made;
}

void SubmitAll(EngineFixture* fixture, P placement, uint32_t attempt) {
  for (EngineRequest& request : Requests(placement)) {
    request.attempt = attempt;
    request.priority = static_cast<int32_t>(request.id % 3);
    const absl::Status status = fixture->engine().Submit(std::move(request));
    REQUIRE(status.ToString() == "OK");
  }
}

void CheckIdle(const EngineStats& stats) {
  CHECK(stats.kv_pages_used == 0);
  CHECK(stats.extra_pages_used == 0);
  CHECK(stats.memory.service_indexes == 0);
  CHECK(stats.memory.inline_indexes == 0);
}

void CheckAll(EngineFixture* fixture, const std::string& device, uint32_t attempt) {
  const std::vector<EngineResult>& wanted = Wanted(device, fixture->kv_type());
  for (uint64_t id = 0; id < wanted.size(); ++id) {
    CAPTURE(id);
    const EngineResult result = fixture->sink().Wait(id, attempt);
    CHECK(result.broken == "");
    CHECK(result.last.status.ToString() == "OK");
    CHECK(SameTokens(result.tokens, wanted[id].tokens));
    CHECK(SameTokens(result.prompt_tokens, wanted[id].prompt_tokens));
  }
  CheckIdle(fixture->engine().Stats());
}

TEST_CASE("sequences longer than the worker's pool: the tokens of a worker that has all their K and V") {
  for (const std::string device : {"reference", "cpu"}) {
    CAPTURE(device);
    Service service;
    EngineFixture fixture(Options(device, &service));
    SubmitAll(&fixture, P::kMemoryService, 0);
    CheckAll(&fixture, device, 0);
    const memory::PipelineStats stats = fixture.engine().Stats().memory;
    CHECK(stats.fallbacks.empty());
    CHECK(stats.hot.selected_tokens > 0);
    CHECK(stats.hot.missed_tokens > 0);
    // An entry that is selected again and again is fetched once.
    CHECK(stats.hot.missed_tokens < stats.hot.selected_tokens / 2);
    CHECK(Eventually([&] { return service.plane().Stats().used_bytes == 0; }));
  }
}

TEST_CASE("a request whose share does not fit, or that is too long even so, is refused at once") {
  Service service;
  FixtureOptions options = Options("cpu", &service);
  options.engine.extra_pages = 40;
  EngineFixture fixture(options);
  EngineRequest request = Requests(P::kMemoryService)[0];
  request.attention.keep_first = 10;
  request.prompt.resize(2600, 5);
  CHECK_THAT(std::string(fixture.engine().Submit(request).message()),
             Catch::Contains("allowed: at most 2560") && Catch::Contains("resident_tokens"));
  request.prompt.resize(2300);
  request.attention.token_budget = 700;
  const absl::Status wide = fixture.engine().Submit(request);
  CHECK(wide.code() == absl::StatusCode::kInvalidArgument);
  request.attention.token_budget = 300;
  CHECK(fixture.Run(request).last.status.ToString() == "OK");
}

TEST_CASE("what is kept goes with a cancelled request") {
  Service service;
  EngineFixture fixture(Options("cpu", &service));
  std::mt19937 random(7);
  for (uint32_t attempt = 0; attempt < 6; ++attempt) {
    SubmitAll(&fixture, P::kMemoryService, attempt);
    fixture.sink().WaitForTokens(random() % 8, random() % 30, attempt);
    for (uint64_t id = 0; id < 8; ++id) fixture.engine().Cancel(id, attempt);
    for (uint64_t id = 0; id < 8; ++id) CHECK(fixture.sink().Wait(id, attempt).broken == "");
    CHECK(Eventually([&] { return fixture.engine().Stats().running == 0; }));
    CheckIdle(fixture.engine().Stats());
  }
  CHECK(Eventually([&] { return service.plane().Stats().used_bytes == 0; }));
}

// A link that is found lost `calls` looks after the page that ends at `page_end` was sent.
class LeavingAttachment final : public transport::MemoryAttachment {
 public:
  LeavingAttachment(std::unique_ptr<transport::MemoryAttachment> inner, uint32_t page_end, int calls)
      : inner_(std::move(inner)), page_end_(page_end), calls_(calls) {}
  const transport::AttachmentInfo& info() const override { return inner_->info(); }
  uint32_t credits(transport::Ring ring) const override { return inner_->credits(ring); }
  absl::Status Submit(transport::Ring ring, std::span<layout::Descriptor> batch) override {
    for (const layout::Descriptor& op : batch) {
      if (op.op == layout::kOpKvStore && op.end == page_end_) sent_ = true;
    }
    return inner_->Submit(ring, batch);
  }
  size_t Poll(transport::Ring ring, std::span<layout::Completion> out) override {
    return inner_->Poll(ring, out);
  }
  absl::Status Wait(transport::Ring ring, std::chrono::nanoseconds timeout) override {
    return inner_->Wait(ring, timeout);
  }
  bool lost() const override { return (sent_ && calls_.fetch_sub(1) <= 0) || inner_->lost(); }

 private:
  const std::unique_ptr<transport::MemoryAttachment> inner_;
  const uint32_t page_end_;
  mutable std::atomic<int> calls_;
  std::atomic<bool> sent_ = false;
};

TEST_CASE("a service that goes during the last steps of a prefill: nothing is computed without its pages") {
  constexpr uint32_t kLastPage = 20 * devices::kPageTokens;
  EngineRequest request = Requests(P::kMemoryService)[0];
  request.prompt.resize(kLastPage + 60);
  request.max_tokens = 8;
  request.attention.placement = P::kInline;
  const std::vector<EngineToken> wanted = EngineFixture(Options("cpu", nullptr)).Run(request).tokens;
  request.attention.placement = P::kMemoryService;
  Service service;
  // From the first look after the last page to decode steps; each step looks a few times.
  for (int calls = 0; calls < 16; ++calls) {
    CAPTURE(calls);
    bool first = true;
    FixtureOptions options = Options("cpu", &service);
    options.engine.max_batch_rows = 24;  // less than a page, so that steps go by in which none is stored
    options.wrap_attachment = [&](std::unique_ptr<transport::MemoryAttachment> link) {
      if (!std::exchange(first, false)) return link;
      return std::unique_ptr<transport::MemoryAttachment>(
          std::make_unique<LeavingAttachment>(std::move(link), kLastPage, calls));
    };
    EngineFixture fixture(options);
    const EngineResult result = fixture.Run(request);
    CHECK(result.last.status.ToString() == "OK");
    CHECK(SameTokens(result.tokens, wanted));
    CHECK(fixture.engine().Stats().memory.fallbacks.at("kv_lost") == 1);
  }
}

TEST_CASE("a service that dies at a random moment: the sequences begin again, with the same tokens") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  Service service;
  EngineFixture fixture(Options("cpu", &service));
  for (uint32_t attempt = 0; attempt < 8 / MNEMO_TEST_REDUCTION; ++attempt) {
    CAPTURE(attempt);
    REQUIRE(Eventually([&] { return fixture.engine().Stats().memory.service_attached; }));
    SubmitAll(&fixture, P::kMemoryService, attempt);
    fixture.sink().WaitForTokens(random() % 8, random() % 40, attempt);
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
    service.Stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 100));
    service.Start();
    CheckAll(&fixture, "cpu", attempt);
  }
  CHECK(fixture.engine().Stats().memory.fallbacks.at("kv_lost") > 0);
}

uint64_t Sum(const std::vector<memory::MemoryStepStat>& steps, memory::MemoryStepKind kind,
             uint64_t memory::MemoryStepStat::*figure) {
  uint64_t sum = 0;
  for (const memory::MemoryStepStat& step : steps) {
    if (step.step == kind) sum += step.*figure;
  }
  return sum;
}

constexpr int kManyTokens = 400;
constexpr uint32_t kTries = 20;

TEST_CASE("what was spent before K and V were lost is part of the sum") {
  Service service;
  EngineFixture fixture(Options("cpu", &service));
  EngineRequest request = Requests(P::kMemoryService)[0];
  // The pool has no room for it: it goes on in the service, with figures of the same steps and device.
  request.prompt.resize(2300, 5);
  request.max_tokens = kManyTokens;
  const EngineResult undisturbed = fixture.Run(request);
  REQUIRE(undisturbed.last.status.ToString() == "OK");
  EngineResult lost;
  while (fixture.engine().Stats().memory.fallbacks.count("kv_lost") == 0) {
    REQUIRE(++request.attempt < kTries);
    REQUIRE(fixture.engine().Submit(request).ToString() == "OK");
    fixture.sink().WaitForTokens(request.id, 60, request.attempt);
    service.Stop();
    service.Start();
    lost = fixture.sink().Wait(request.id, request.attempt);
    REQUIRE(lost.last.status.ToString() == "OK");
  }
  CHECK(SameTokens(lost.tokens, undisturbed.tokens));
  using Kind = memory::MemoryStepKind;
  using Stat = memory::MemoryStepStat;
  const auto total = [](const EngineResult& result, Kind kind, uint64_t Stat::*figure) {
    return Sum(result.last.memory_steps, kind, figure);
  };
  for (const Kind kind : {Kind::kPrepare, Kind::kRelevancy, Kind::kRetrieval, Kind::kApply}) {
    CAPTURE(static_cast<int>(kind));
    CHECK(total(lost, kind, &Stat::count) > total(undisturbed, kind, &Stat::count));
    CHECK(total(lost, kind, &Stat::bytes) > total(undisturbed, kind, &Stat::bytes));
    // Reports are of one sum, however many there are.
    for (const auto figure : {&Stat::count, &Stat::bytes, &Stat::time_ns, &Stat::round_trips}) {
      uint64_t before = 0;
      for (const auto& steps : lost.memory_steps) {
        CHECK(Sum(steps, kind, figure) >= before);
        before = Sum(steps, kind, figure);
      }
      CHECK(total(lost, kind, figure) >= before);
    }
  }
  CHECK(total(lost, Kind::kRelevancy, &Stat::round_trips) >
        total(undisturbed, Kind::kRelevancy, &Stat::round_trips));
}

TEST_CASE(
    "a request that the worker keeps since there is no service is counted once, and shows both devices") {
  using Counts = std::map<std::string, uint64_t>;
  for (uint32_t attempt = 0; attempt < kTries; ++attempt) {
    Service service;
    FixtureOptions options = Options("cpu", &service);
    options.engine.placement = P::kMemoryService;
    options.engine.kv_pages = 50;  // room for one
    EngineFixture fixture(options);
    EngineRequest request = Requests(P::kAny)[0];
    request.max_tokens = kManyTokens;
    REQUIRE(fixture.engine().Submit(request).ToString() == "OK");
    fixture.sink().WaitForTokens(request.id, 60);
    service.Stop();
    const EngineResult lost = fixture.sink().Wait(request.id);
    REQUIRE(lost.last.status.ToString() == "OK");
    if (fixture.engine().Stats().memory.fallbacks.empty()) continue;
    CHECK(fixture.engine().Stats().memory.fallbacks == Counts{{"kv_lost", 1}, {"service_absent", 1}});
    std::set<std::string> devices;
    for (const memory::MemoryStepStat& step : lost.last.memory_steps) {
      if (step.step == memory::MemoryStepKind::kRelevancy) devices.insert(step.device);
    }
    CHECK(devices.size() == 2);
    request.attempt = 1;
    CHECK(SameTokens(fixture.Run(request).tokens, lost.tokens));
    CHECK(fixture.engine().Stats().memory.fallbacks == Counts{{"kv_lost", 1}, {"service_absent", 2}});
    return;
  }
  FAIL("each time it was over before the service had stopped");
}

TEST_CASE(
    "a service that does not come back: UNAVAILABLE after the bound, or the worker where that has room") {
  for (const bool fits : {false, true}) {
    Service service;
    FixtureOptions options = Options("cpu", &service);
    options.engine.service_wait = std::chrono::milliseconds(300);
    options.engine.placement = P::kMemoryService;
    if (fits) options.engine.kv_pages = 300;
    EngineFixture fixture(options);
    SubmitAll(&fixture, P::kAny, 0);
    fixture.sink().WaitForTokens(0, 10);
    service.Stop();
    if (fits) {
      CheckAll(&fixture, "cpu", 0);
      continue;
    }
    for (uint64_t id = 0; id < 8; ++id) {
      const EngineResult result = fixture.sink().Wait(id);
      CHECK(result.broken == "");
      if (!result.last.status.ok()) CHECK(result.last.status.code() == absl::StatusCode::kUnavailable);
    }
    CheckIdle(fixture.engine().Stats());
  }
}

TEST_CASE("a full service: refused before it starts when it was asked for, otherwise in the worker") {
  memory_service::DataPlane::Options small;
  small.memory_bytes = 400 << 10;
  small.max_owners = 1;
  Service service(small);
  FixtureOptions options = Options("cpu", &service);
  options.engine.kv_pages = 300;
  options.engine.placement = P::kMemoryService;
  EngineFixture fixture(options);
  SubmitAll(&fixture, P::kAny, 0);
  CheckAll(&fixture, "cpu", 0);
  CHECK(fixture.engine().Stats().memory.fallbacks.at("service_full") > 0);
  EngineRequest request = Requests(P::kMemoryService)[0];
  request.attempt = 1;
  const EngineResult refused = fixture.Run(request);
  CHECK(refused.last.status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(refused.tokens.empty());
}

uint64_t Refused(Service* service) {
  uint64_t refused = 0;
  for (const memory_service::OwnerStats& owner : service->plane().Stats().owners) refused += owner.refused;
  return refused;
}

TEST_CASE("a request that has begun waits for room in a full service, and is not refused") {
  EngineRequest request = Requests(P::kMemoryService)[0];
  request.prompt.resize(2300, 5);
  request.max_tokens = kManyTokens;
  memory_service::DataPlane::Options small;
  small.max_owners = 1;
  // The least memory that has room for one request; two need more.
  EngineResult wanted;
  for (small.memory_bytes = 256 << 10; wanted.tokens.empty(); small.memory_bytes += small.memory_bytes / 4) {
    Service service(small);
    wanted = EngineFixture(Options("cpu", &service)).Run(request);
    if (!wanted.tokens.empty()) break;
    REQUIRE(wanted.last.status.code() == absl::StatusCode::kResourceExhausted);
  }
  // A replay, as after the death of another worker.
  EngineRequest replay = request;
  replay.id = 1;
  replay.begun = true;
  for (size_t i = 0; i < 5; ++i) replay.generated.push_back(wanted.tokens[i].id);
  for (const int wait_ms : {60000, 0}) {
    CAPTURE(wait_ms);
    Service service(small);
    FixtureOptions options = Options("cpu", &service);
    options.engine.service_wait = std::chrono::milliseconds(wait_ms);
    EngineFixture fixture(options);
    EngineResult replayed;
    while (Refused(&service) == 0) {
      REQUIRE(++replay.attempt < kTries);
      request.attempt = replay.attempt;
      REQUIRE(fixture.engine().Submit(request).ToString() == "OK");
      fixture.sink().WaitForTokens(request.id, 1, request.attempt);
      replayed = fixture.Run(replay);
      CHECK(fixture.sink().Wait(request.id, request.attempt).last.status.ToString() == "OK");
    }
    if (wait_ms == 0) {
      CHECK(replayed.last.status.code() == absl::StatusCode::kUnavailable);
      continue;
    }
    CHECK(replayed.last.status.ToString() == "OK");
    REQUIRE(replayed.tokens.size() + replay.generated.size() == wanted.tokens.size());
    CHECK(SameTokens(replayed.tokens, {wanted.tokens.begin() + 5, wanted.tokens.end()}));
    CheckIdle(fixture.engine().Stats());
  }
}

TEST_CASE("K and V behind a device that is late, fails, hangs or loses its memory: the same tokens") {
  uint64_t failures = 0;
  const int schedules = std::max(2, 4 / MNEMO_TEST_REDUCTION);
  for (int schedule = 0; schedule < schedules; ++schedule) {
    CAPTURE(schedule);
    Service service(
        memory_service::testing::LateDevice(memory_service::testing::DeviceFaultOf(schedule, 600)));
    FixtureOptions options = Options("cpu", &service);
    options.kv_type = KvTypeOf(schedule);
    EngineFixture fixture(options);
    SubmitAll(&fixture, P::kMemoryService, 0);
    CheckAll(&fixture, "cpu", 0);
    failures += service.plane().counters().device_failures;
    CHECK(Eventually([&] { return service.plane().Stats().used_bytes == 0; }));
  }
  CHECK(failures > 0);
}

// Every other schedule with K and V of 8 bits. 10 schedules, or as many as MNEMO_FAULT_SCHEDULES says.
TEST_CASE("seeded faults of the link, with K and V behind it: no wrong token, nothing left") {
  Service service;
  uint64_t lost = 0;
  const char* const wanted = std::getenv("MNEMO_FAULT_SCHEDULES");
  const int schedules = wanted == nullptr ? 10 / MNEMO_TEST_REDUCTION : std::stoi(wanted);
  for (int schedule = 0; schedule < schedules; ++schedule) {
    CAPTURE(schedule);
    std::atomic<uint64_t> links = 0;
    FixtureOptions options = Options("cpu", &service);
    options.kv_type = KvTypeOf(schedule);
    options.wrap_attachment = [&](std::unique_ptr<transport::MemoryAttachment> link) {
      // A fault for the first link of each schedule; the ones after it are sound.
      const uint64_t number = links.fetch_add(1);
      if (number > 0) return link;
      transport::FaultPlan plan = FaultOf(schedule, number, 20000);
      return transport::MakeFaultyAttachment(std::move(link), plan);
    };
    EngineFixture fixture(options);
    SubmitAll(&fixture, P::kMemoryService, 0);
    CheckAll(&fixture, "cpu", 0);
    for (const auto& [reason, count] : fixture.engine().Stats().memory.fallbacks) lost += count;
  }
  CHECK(lost > 0);
  CHECK(Eventually([&] { return service.plane().Stats().used_bytes == 0; }));
}

}  // namespace
}  // namespace mnemo::worker
