#include "server/worker/span_recorder.h"

#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

namespace mnemo::worker {
namespace {

using attribution::EnergyStep;
using attribution::StepIndex;

constexpr int64_t kMs = 1'000'000;

EngineRequest Spec(int prompt_tokens) {
  EngineRequest spec;
  spec.prompt.assign(static_cast<size_t>(prompt_tokens), 1);
  spec.max_tokens = 9;
  return spec;
}

// Layers that cost 100 multiply-adds and 1000 bytes, an output that costs 10 and 100, and one full, one
// indexed and one windowed layer whose positions cost 1 and 2.
WorkModel Model() {
  return {.row_macs = 100,
          .logit_macs = 10,
          .weight_bytes = 1000,
          .output_bytes = 100,
          .full_macs = 1,
          .indexed_macs = 1,
          .windowed_macs = 1,
          .full_bytes = 2,
          .indexed_bytes = 2,
          .windowed_bytes = 2,
          .window = 4,
          .score_macs = 3};
}

std::map<EnergyStep, EngineSpan> Taken(Request* request) {
  std::vector<EngineSpan> spans;
  SpanRecorder::Take(request, "memory0:cpu", &spans);
  std::map<EnergyStep, EngineSpan> work;
  for (const EngineSpan& span : spans) {
    CHECK(span.device.empty());
    CHECK(work.emplace(span.step, span).second);
  }
  return work;
}

}  // namespace

TEST_CASE("work of rows counts matrices, attended positions and bytes, with windows") {
  // Rows at positions 6 and 7 attend to 7 and 8 positions, in the window to 4 each; they read 8 and 5.
  const RowWork both = WorkOf(Model(), {.row_count = 2, .position_begin = 6, .logit_rows = 1}, 4, 2);
  CHECK(both.macs == Approx(2 * 100 + 10 + 2 * 15 + 8));
  CHECK(both.bytes == Approx(500 + 50 + 2 * 2 * 8 + 2 * 5));
  const RowWork selecting =
      WorkOf(Model(), {.row_count = 1, .position_begin = 6, .logit_rows = 1, .selects = true}, 1, 1);
  CHECK(selecting.macs == Approx(100 + 10 + 7 + 4));
  CHECK(selecting.bytes == Approx(1000 + 100 + 2 * 7 + 2 * 4));
}

TEST_CASE("a step's time goes to its requests by their shares of the work") {
  Request prompt(Spec(8), 0, {});
  Request decode(Spec(3), 1, {});
  decode.pages.computed = 3;
  SpanRecorder recorder(Model(), 4);
  const std::vector<PlannedSequence> plan = {{&prompt, 4}, {&decode, 1}};
  recorder.Begin(plan, 100 * kMs);  // not enabled
  recorder.End(110 * kMs);
  CHECK_FALSE(SpanRecorder::HasPaused(prompt, 1000 * kMs));

  recorder.SetEnabled(true);
  recorder.Begin(plan, 100 * kMs);
  recorder.End(110 * kMs);
  CHECK(prompt.spans.first_ns == 100 * kMs);
  CHECK(prompt.spans.last_ns == 110 * kMs);
  CHECK_FALSE(SpanRecorder::IsDue(prompt));
  CHECK_FALSE(SpanRecorder::HasPaused(prompt, 119 * kMs));
  CHECK(SpanRecorder::HasPaused(prompt, 120 * kMs));
  recorder.Begin(plan, 110 * kMs);
  recorder.End(150 * kMs);
  CHECK(SpanRecorder::IsDue(prompt));
  const RowWork a = WorkOf(Model(), {.row_count = 4, .position_begin = 0}, 5, 1);
  const RowWork b = WorkOf(Model(), {.row_count = 1, .position_begin = 3, .logit_rows = 1}, 5, 1);
  const double share = (a.macs / (a.macs + b.macs) + a.bytes / (a.bytes + b.bytes)) / 2;
  auto prefilled = Taken(&prompt);
  auto decoded = Taken(&decode);
  REQUIRE(prefilled.size() == 1);
  REQUIRE(decoded.size() == 1);
  const EngineSpan& prefill = prefilled[EnergyStep::kPrefill];
  const EngineSpan& decoding = decoded[EnergyStep::kDecode];
  CHECK(static_cast<double>(prefill.work_ns) == Approx(share * 50e6));
  CHECK(static_cast<double>(decoding.work_ns) == Approx((1 - share) * 50e6));
  // Two steps, of the same rows.
  CHECK(static_cast<double>(prefill.operations) == Approx(2 * a.macs));
  CHECK(static_cast<double>(decoding.operations) == Approx(2 * b.macs));
  CHECK(static_cast<double>(prefill.bytes) == Approx(2 * a.bytes));
  CHECK(static_cast<double>(decoding.bytes) == Approx(2 * b.bytes));
  CHECK(Taken(&prompt).empty());
  CHECK_FALSE(SpanRecorder::IsDue(prompt));
}

TEST_CASE("spans name the service for work that was done there") {
  Request request(Spec(3), 0, {});
  request.spans.first_ns = 5;
  request.spans.last_ns = 9;
  request.spans.work[1][StepIndex(EnergyStep::kRelevancy)] = {.time_ns = 2, .bytes = 30, .operations = 400};
  request.spans.work[1][StepIndex(EnergyStep::kPrepare)] = {.time_ns = 0, .bytes = 7};
  std::vector<EngineSpan> spans;
  SpanRecorder::Take(&request, "memory0:cpu", &spans);
  REQUIRE(spans.size() == 2);
  // Bytes without measured time are reported all the same.
  CHECK(spans[0].step == EnergyStep::kPrepare);
  CHECK(spans[0].work_ns == 1);
  CHECK(spans[0].bytes == 7);
  CHECK(spans[1].device == "memory0:cpu");
  CHECK(spans[1].step == EnergyStep::kRelevancy);
  CHECK(spans[1].begin_ns == 5);
  CHECK(spans[1].end_ns == 9);
  CHECK(spans[1].work_ns == 2);
  CHECK(spans[1].bytes == 30);
  CHECK(spans[1].operations == 400);
}

}  // namespace mnemo::worker
