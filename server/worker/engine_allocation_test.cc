// The step loop allocates nothing but the events that it hands on.
#include <catch2/catch.hpp>
#include <mutex>
#include <vector>

#include "server/worker/engine_fixture.h"
#include "tests/conformance/allocation_count.h"

namespace mnemo::worker {
namespace {

// Counts allocations from the end of one OnStep to the beginning of the next.
class CountingSink : public EngineSink {
 public:
  CountingSink() { steps_.reserve(10000); }
  struct Step {
    uint64_t allocations = 0;
    size_t events = 0;
  };

  void OnStep(std::vector<EngineEvent> events) override {
    const uint64_t allocations = conformance::AllocationCount() - before_;
    {
      std::lock_guard lock(mutex_);
      steps_.push_back({allocations, events.size()});
      for (const EngineEvent& event : events) finished_ += event.finish != EngineFinish::kNone ? 1 : 0;
    }
    events.clear();
    events.shrink_to_fit();
    changed_.notify_all();
    before_ = conformance::AllocationCount();
  }

  std::vector<Step> WaitForFinishes(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(60), [&] { return finished_ >= count; });
    return steps_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Step> steps_;
  int finished_ = 0;
  uint64_t before_ = 0;
};

}  // namespace

TEST_CASE("a step allocates its events and nothing else") {
  const bool reports_spans = GENERATE(false, true);
  CountingSink sink;
  FixtureOptions options;
  options.engine.max_batch_rows = 32;
  options.engine.max_running = 4;
  options.engine.kv_pages = 64;
  options.engine.reserve_tokens = 8;  // so that pages are taken beyond the reservation
  EngineFixture fixture(options);
  const auto engine = fixture.Create(options.engine, &sink);
  REQUIRE(engine.ok());
  (*engine)->SetReportsSpans(reports_spans);
  for (uint64_t id = 0; id < 4; ++id) {
    EngineRequest request;
    request.id = id;
    request.prompt.assign(100 + 10 * id, static_cast<int32_t>(id));
    request.max_tokens = 300;
    request.logprobs = 2;
    request.sampling.repetition_penalty = 1.1f;
    REQUIRE((*engine)->Submit(request).ok());
  }
  const std::vector<CountingSink::Step> steps = sink.WaitForFinishes(4);
  int checked = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].events < 4) continue;  // while requests arrive or end
    // The list, and each one's tokens; now and then each one's spans.
    CHECK(steps[i].allocations <= 1 + (reports_spans ? 2 : 1) * steps[i].events);
    ++checked;
  }
  CHECK(checked > 200);
}

}  // namespace mnemo::worker
