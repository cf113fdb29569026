#include "server/worker/step_report.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <utility>
#include <vector>

namespace mnemo::worker {
namespace {

using std::chrono::seconds;
using Clock = Request::Clock;

constexpr Clock::time_point kSubmitted{std::chrono::hours(1)};

EngineRequest Spec(uint64_t id) {
  EngineRequest spec;
  spec.id = id;
  spec.attempt = 3;
  spec.prompt = {1, 2};
  spec.max_tokens = 9;
  return spec;
}

class Sink : public EngineSink {
 public:
  void OnStep(std::vector<EngineEvent> events) override { steps.push_back(std::move(events)); }
  std::vector<std::vector<EngineEvent>> steps;
};

}  // namespace

TEST_CASE("a request has one event a turn, and a turn without events is not delivered") {
  Request first(Spec(1), 0, kSubmitted);
  Request second(Spec(2), 1, kSubmitted);
  StepReport report;
  Sink sink;
  report.BeginTurn();
  report.EventOf(&second).refused = true;
  report.EventOf(&first).tokens.push_back({.index = 0, .id = 7});
  CHECK(report.EventOf(&second).refused);
  CHECK(report.EventWithTokens(second) == nullptr);
  REQUIRE(report.EventWithTokens(first) != nullptr);
  CHECK(report.EventWithTokens(first)->tokens[0].id == 7);
  report.Deliver(&sink);
  report.BeginTurn();
  CHECK(report.EventWithTokens(first) == nullptr);
  report.Deliver(&sink);
  REQUIRE(sink.steps.size() == 1);
  REQUIRE(sink.steps[0].size() == 2);
  CHECK(sink.steps[0][0].id == 2);
  CHECK(sink.steps[0][1].id == 1);
  CHECK(sink.steps[0][1].attempt == 3);
}

TEST_CASE("a summary's times end with the first token, the end, or now") {
  Request request(Spec(1), 0, kSubmitted);
  EngineEvent event;
  StepReport::FillSummary(request, kSubmitted + seconds(2), &event);
  CHECK(event.queue_time == seconds(2));
  CHECK(event.prefill_time == seconds(0));
  CHECK(event.max_tokens == 9);
  request.admission.was_admitted = true;
  request.admission.first_admitted = kSubmitted + seconds(3);
  request.admission.cached_tokens = 64;
  request.admission.preemptions = 2;
  StepReport::FillSummary(request, kSubmitted + seconds(7), &event);
  CHECK(event.queue_time == seconds(3));
  CHECK(event.prefill_time == seconds(4));
  CHECK(event.decode_time == seconds(0));
  CHECK(event.cached_prompt_tokens == 64);
  CHECK(event.preemptions == 2);
  CHECK(StepReport::NoteOutput(&request, kSubmitted + seconds(8)));
  CHECK_FALSE(StepReport::NoteOutput(&request, kSubmitted + seconds(9)));
  CHECK(request.has_begun());
  StepReport::FillSummary(request, kSubmitted + seconds(20), &event);
  CHECK(event.queue_time == seconds(3));
  CHECK(event.prefill_time == seconds(5));
  CHECK(event.decode_time == seconds(12));
}

}  // namespace mnemo::worker
