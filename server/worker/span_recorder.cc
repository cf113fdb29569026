#include "server/worker/span_recorder.h"

#include <algorithm>

namespace mnemo::worker {
namespace {

using attribution::EnergyStep;
using attribution::StepIndex;

// Spans of so long a time are worth a message: half an interval of the meters.
constexpr int64_t kReportNs = 50'000'000;

// A request without steps for longer has paused: it was preempted, or a long step of others came between.
constexpr int64_t kPauseNs = 10'000'000;

enum { kWorker = 0, kService = 1 };

// Energy steps of memory processing, in the order of MemoryStepKind.
constexpr std::array<EnergyStep, 4> kMemorySteps = {EnergyStep::kPrepare, EnergyStep::kRelevancy,
                                                    EnergyStep::kRetrieval, EnergyStep::kApply};

using Costs = std::array<memory::Pipeline::StepCost, 4>;

// Costs since `told`, which becomes `now`. An account that is less has begun again with a new opening.
Costs Since(const Costs& now, Costs* told) {
  const auto since = [](uint64_t count, uint64_t before) { return count >= before ? count - before : count; };
  Costs costs;
  for (size_t i = 0; i < now.size(); ++i) {
    const memory::Pipeline::StepCost& before = (*told)[i];
    costs[i] = {since(now[i].time_ns, before.time_ns), since(now[i].bytes, before.bytes),
                since(now[i].count, before.count)};
  }
  *told = now;
  return costs;
}

double SumOfTimes(const Costs& costs) {
  double sum = 0;
  for (const memory::Pipeline::StepCost& cost : costs) sum += static_cast<double>(cost.time_ns);
  return sum;
}

}  // namespace

SpanRecorder::SpanRecorder(const WorkModel& model, int max_sequences) : model_(model) {
  step_.reserve(static_cast<size_t>(max_sequences));
}

void SpanRecorder::Begin(std::span<const PlannedSequence> plan, int64_t now_ns) {
  step_.clear();
  if (!enabled_.load(std::memory_order_relaxed)) return;
  begin_ns_ = now_ns;
  for (const PlannedSequence& planned : plan) {
    Row& row = step_.emplace_back();
    row.request = planned.request;
    row.prefills = planned.request->prefilling();
    row.rows = {
        .row_count = planned.row_count,
        .position_begin = planned.request->pages.computed,
        .logit_rows = planned.request->pages.computed + planned.row_count >= planned.request->prefill_end(),
        .selects = !row.prefills && planned.request->residence.memory != nullptr};
  }
}

double SpanRecorder::AddMemory(double step_ns) {
  double in_worker = 0, in_service = 0, waited = 0;
  for (Row& row : step_) {
    if (row.request->residence.memory == nullptr) continue;
    const memory::Pipeline::StepCosts costs = memory::Pipeline::CostsOf(*row.request->residence.memory);
    row.spent.worker = Since(costs.worker, &row.request->spans.told.worker);
    row.spent.service = Since(costs.service, &row.request->spans.told.service);
    in_worker += SumOfTimes(row.spent.worker);
    in_service += SumOfTimes(row.spent.service);
    waited += static_cast<double>(row.spent.service[1].time_ns + row.spent.service[2].time_ns);
  }
  // Times of several threads are means over them; still no device is busy for longer than the step.
  const double worker_scale = in_worker > step_ns ? step_ns / in_worker : 1;
  const double service_scale = in_service > step_ns ? step_ns / in_service : 1;
  // Scores take one product with a key for each query head, attention another one with a value.
  const std::array<double, 4> operations = {0, model_.score_macs, 0, 2 * model_.score_macs};
  for (const Row& row : step_) {
    if (row.request->residence.memory == nullptr) continue;
    for (size_t i = 0; i < kMemorySteps.size(); ++i) {
      const size_t step = StepIndex(kMemorySteps[i]);
      const auto add = [&](const memory::Pipeline::StepCost& cost, double scale, RequestSpans::Work* work) {
        work->time_ns += scale * static_cast<double>(cost.time_ns);
        work->bytes += static_cast<double>(cost.bytes);
        work->operations += operations[i] * static_cast<double>(cost.count);
      };
      add(row.spent.worker[i], worker_scale, &row.request->spans.work[kWorker][step]);
      add(row.spent.service[i], service_scale, &row.request->spans.work[kService][step]);
    }
  }
  return std::max(0.0, step_ns - in_worker - waited);
}

void SpanRecorder::End(int64_t now_ns) {
  if (step_.empty() || now_ns <= begin_ns_) return;
  int step_rows = 0, logit_rows = 0;
  for (const Row& row : step_) {
    step_rows += row.rows.row_count;
    logit_rows += row.rows.logit_rows;
    RequestSpans& spans = row.request->spans;
    if (spans.first_ns == 0) spans.first_ns = begin_ns_;
    spans.last_ns = now_ns;
  }
  const double left_ns = AddMemory(static_cast<double>(now_ns - begin_ns_));
  RowWork all;
  for (Row& row : step_) {
    row.work = WorkOf(model_, row.rows, step_rows, logit_rows);
    all.macs += row.work.macs;
    all.bytes += row.work.bytes;
  }
  for (const Row& row : step_) {
    const double share = (row.work.macs / all.macs + row.work.bytes / all.bytes) / 2;
    const EnergyStep step = row.prefills ? EnergyStep::kPrefill : EnergyStep::kDecode;
    RequestSpans::Work& work = row.request->spans.work[kWorker][StepIndex(step)];
    work.time_ns += left_ns * share;
    work.bytes += row.work.bytes;
    work.operations += row.work.macs;
  }
  step_.clear();
}

bool SpanRecorder::IsDue(const Request& request) {
  return request.spans.first_ns != 0 && request.spans.last_ns - request.spans.first_ns >= kReportNs;
}

bool SpanRecorder::HasPaused(const Request& request, int64_t now_ns) {
  return request.spans.first_ns != 0 && now_ns - request.spans.last_ns >= kPauseNs;
}

void SpanRecorder::Take(Request* request, const std::string& service, std::vector<EngineSpan>* spans) {
  RequestSpans& work = request->spans;
  if (work.first_ns == 0) return;
  for (int side = kWorker; side <= kService; ++side) {
    for (size_t step = 0; step < attribution::kEnergySteps; ++step) {
      const RequestSpans::Work& done = work.work[static_cast<size_t>(side)][step];
      if (done.time_ns <= 0 && done.bytes <= 0) continue;
      spans->push_back({.step = static_cast<EnergyStep>(step + 1),
                        .device = side == kWorker ? std::string() : service,
                        .begin_ns = work.first_ns,
                        .end_ns = work.last_ns,
                        .work_ns = std::max<int64_t>(1, static_cast<int64_t>(done.time_ns)),
                        .bytes = static_cast<uint64_t>(done.bytes),
                        .operations = static_cast<uint64_t>(done.operations)});
    }
  }
  work.work = {};
  work.first_ns = work.last_ns = 0;
}

}  // namespace mnemo::worker
