// A memory service that grants less than the methods need: they run in the worker from the start, or are
// refused before they start. The service checks every descriptor against what it granted, so that an
// operation that it lacks would end the attachment.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <map>

#include "devices/transport/listener.h"
#include "server/memory_service/data_plane.h"
#include "server/worker/engine_fixture.h"
#include "tests/support/eventually.h"

namespace mnemo::worker {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using M = memory::AttentionSettings::Method;
using P = memory::AttentionSettings::Placement;
using Change = std::function<void(layout::AttachHello*)>;
using Counts = std::map<std::string, uint64_t>;

// Takes capabilities away from what the data plane grants.
class LesserHost final : public transport::ListenerHost {
 public:
  LesserHost(transport::ListenerHost* inner, Change change) : inner_(inner), change_(std::move(change)) {}
  absl::StatusOr<layout::AttachHello> Grant(const std::string& owner,
                                            const layout::AttachHello& wanted) override {
    absl::StatusOr<layout::AttachHello> granted = inner_->Grant(owner, wanted);
    if (granted.ok()) change_(&*granted);
    return granted;
  }
  void Attached(uint16_t epoch, std::unique_ptr<transport::ServiceAttachment> link) override {
    inner_->Attached(epoch, std::move(link));
  }

 private:
  transport::ListenerHost* const inner_;
  const Change change_;
};

struct LesserService {
  explicit LesserService(Change change) {
    memory_service::DataPlane::Options options;
    options.region_bytes = 32 << 20;
    auto made = memory_service::DataPlane::Create(options);
    REQUIRE(made.ok());
    plane = *std::move(made);
    host = std::make_unique<LesserHost>(plane.get(), std::move(change));
    auto listening = transport::Listener::Create(socket, plane->device_name(), host.get());
    REQUIRE(listening.ok());
    listener = *std::move(listening);
  }
  std::string address() const { return "unix:" + socket; }

  const std::string socket = "/tmp/mnemo-lesser-" + std::to_string(::getpid());
  std::unique_ptr<memory_service::DataPlane> plane;
  std::unique_ptr<LesserHost> host;
  std::unique_ptr<transport::Listener> listener;  // ends before its host
};

FixtureOptions Options(const std::string& address) {
  FixtureOptions options;
  options.device = "cpu";
  options.threads = 2;
  options.context_tokens = 2048;
  options.engine.kv_pages = 100;
  options.memory_address = address;
  return options;
}

EngineRequest Ask(M method, P placement, int prompt_tokens = 300) {
  static uint64_t asked = 0;
  EngineRequest request;
  request.id = ++asked;
  request.sampling.temperature = 0;
  for (int i = 0; i < prompt_tokens; ++i) request.prompt.push_back(i * 7 % 256);
  request.max_tokens = 30;
  request.logprobs = 1;
  request.attention = {.method = method,
                       .token_budget = 128,
                       .keep_first = 4,
                       .keep_last = 32,
                       .first_stage_tokens = 200,
                       .placement = placement};
  return request;
}

void WithoutPagesAndStages(layout::AttachHello* granted) {
  granted->formats &= ~(1U << layout::kFormatMeans);
  granted->score_ops = static_cast<uint8_t>(granted->score_ops & ~(1U << layout::kScorePageBound));
  granted->cascade = 0;
}

// The operations of a card that scores keys and pages, and ranks by maxima.
void LikeCard(layout::AttachHello* granted) {
  granted->score_ops =
      (1U << layout::kScoreDot) | (1U << layout::kScorePageBound) | (1U << layout::kScoreBlockMean);
  granted->group_ops = (1U << layout::kGroupMax) | (1U << layout::kGroupPlainMax);
  granted->select_ops = 1U << layout::kSelectTopK;
}

void WithoutGather(layout::AttachHello* granted) { granted->ops &= ~(1U << layout::kOpGather); }

TEST_CASE("methods that the service lacks something for run in the worker, counted, with the same tokens") {
  LesserService service(WithoutPagesAndStages);
  EngineFixture fixture(Options(service.address()));
  uint64_t lacking = 0;
  for (const M method : {M::kTokenTopk, M::kBlockMean, M::kPageBound, M::kCascade}) {
    CAPTURE(static_cast<int>(method));
    const EngineResult wanted = fixture.Run(Ask(method, P::kInline));
    const uint64_t trips = fixture.engine().Stats().memory.round_trips.count;
    const EngineResult got = fixture.Run(Ask(method, P::kAny));
    CHECK(got.last.status.ToString() == "OK");
    CHECK(SameTokens(got.tokens, wanted.tokens));
    const memory::PipelineStats stats = fixture.engine().Stats().memory;
    if (method == M::kTokenTopk) {
      CHECK(stats.round_trips.count > trips);
      CHECK(stats.fallbacks.empty());
      continue;
    }
    CHECK(stats.round_trips.count == trips);
    CHECK(stats.fallbacks == Counts{{"service_incapable", ++lacking}});
    CHECK(got.last.memory_fallbacks == 1);
    CHECK(got.last.memory_fallback_reason == "service_incapable");
  }
  CHECK(fixture.engine().Stats().memory.service_attached);
}

TEST_CASE("a card without sums of exponentials takes every method but block_mean") {
  LesserService service(LikeCard);
  EngineFixture fixture(Options(service.address()));
  for (const M method : {M::kTokenTopk, M::kCascade, M::kPageBound, M::kBlockMean}) {
    CAPTURE(static_cast<int>(method));
    const EngineResult wanted = fixture.Run(Ask(method, P::kInline));
    const EngineResult got = fixture.Run(Ask(method, P::kMemoryService));
    if (method == M::kBlockMean) {
      CHECK(got.last.refused);
      CHECK_THAT(std::string(got.last.status.message()), EndsWith("lacks group operation EXP2_SUM"));
      continue;
    }
    CHECK(got.last.status.ToString() == "OK");
    CHECK(SameTokens(got.tokens, wanted.tokens));
    CHECK(got.last.memory_fallbacks == 0);
  }
  const EngineResult wanted = fixture.Run(Ask(M::kBlockMean, P::kInline));
  const EngineResult got = fixture.Run(Ask(M::kBlockMean, P::kAny));
  CHECK(SameTokens(got.tokens, wanted.tokens));
  CHECK(got.last.memory_fallback_reason == "service_incapable");
}

TEST_CASE("a request that insists on the service is refused before it starts, and told what is missing") {
  LesserService service(WithoutPagesAndStages);
  EngineFixture fixture(Options(service.address()));
  const std::pair<M, const char*> cases[] = {{M::kBlockMean, "format MEANS"},
                                             {M::kPageBound, "score operation PAGE_BOUND"},
                                             {M::kCascade, "selection in two stages"}};
  for (const auto& [method, missing] : cases) {
    const EngineResult refused = fixture.Run(Ask(method, P::kMemoryService));
    CHECK(refused.tokens.empty());
    CHECK(refused.last.refused);
    CHECK(absl::IsFailedPrecondition(refused.last.status));
    CHECK_THAT(std::string(refused.last.status.message()),
               Contains("attention.placement: the memory service ") && Contains(missing));
  }
  CHECK(fixture.Run(Ask(M::kTokenTopk, P::kMemoryService)).last.status.ToString() == "OK");
  // A request that has begun elsewhere goes on in the worker.
  EngineRequest begun = Ask(M::kBlockMean, P::kMemoryService);
  begun.begun = true;
  CHECK(fixture.Run(begun).last.status.ToString() == "OK");
  CHECK(fixture.engine().Stats().memory.fallbacks == Counts{{"service_incapable", 1}});
}

TEST_CASE("a service that cannot gather keeps no K and V, and still selects") {
  LesserService service(WithoutGather);
  FixtureOptions options = Options(service.address());
  options.engine.kv_pages = 24;  // room for 1,536 positions
  options.engine.extra_pages = 64;
  EngineFixture fixture(options);
  const EngineResult wanted = fixture.Run(Ask(M::kTokenTopk, P::kInline, 1300));
  const EngineResult got = fixture.Run(Ask(M::kTokenTopk, P::kAny, 1300));
  CHECK(got.last.status.ToString() == "OK");
  CHECK(SameTokens(got.tokens, wanted.tokens));
  const memory::PipelineStats stats = fixture.engine().Stats().memory;
  CHECK(stats.hot.selected_tokens == 0);
  CHECK(stats.round_trips.count > 0);
  CHECK(stats.fallbacks == Counts{{"service_incapable", 1}});
  for (const EngineResult& refused : {fixture.Run(Ask(M::kTokenTopk, P::kMemoryService, 1300)),
                                      fixture.Run(Ask(M::kTokenTopk, P::kAny, 1600))}) {
    CHECK(refused.tokens.empty());
    CHECK(absl::IsFailedPrecondition(refused.last.status));
    CHECK_THAT(std::string(refused.last.status.message()),
               Contains("memory.kv_residency: the memory service ") && Contains("operation GATHER"));
  }
  CHECK(fixture.engine().Stats().kv_pages_used == 0);
}

}  // namespace
}  // namespace mnemo::worker
