// Records the work of engine steps by request, for the attribution of energy.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/worker/engine.h"
#include "server/worker/request.h"
#include "server/worker/scheduler.h"
#include "server/worker/work_model.h"

namespace mnemo::worker {

// Used by the engine thread alone, but for SetEnabled. Does not allocate between Begin and End. Writes
// RequestSpans.
//
// A step's time is divided so: steps of memory processing have their accounted time. What is left goes to the
// requests by the mean of two shares, that of the step's multiply-adds and that of its bytes (WorkOf). Spans
// carry multiply-adds and bytes too. Memory processing has those of scores and of the attention to selected
// positions; preparation and selection of entries have bytes alone.
class SpanRecorder {
 public:
  // A step has at most `max_sequences` sequences.
  SpanRecorder(const WorkModel& model, int max_sequences);

  void SetEnabled(bool enabled) { enabled_.store(enabled, std::memory_order_relaxed); }
  // Before the rows of `plan` are computed; after their tokens are drawn. A Begin without End counts for
  // nothing. Times: CLOCK_MONOTONIC in ns.
  void Begin(std::span<const PlannedSequence> plan, int64_t now_ns);
  void End(int64_t now_ns);

  // The request has work of so long a time that it is to be reported.
  static bool IsDue(const Request& request);
  // The request has work to report, and paused since: the pause must not become part of a span.
  static bool HasPaused(const Request& request, int64_t now_ns);
  // Appends what is not reported yet. `service`: device of the memory service.
  static void Take(Request* request, const std::string& service, std::vector<EngineSpan>* spans);

 private:
  struct Row {
    Request* request = nullptr;
    SequenceRows rows;
    bool prefills = false;
    memory::Pipeline::StepCosts spent;  // in this step
    RowWork work;                       // set at the step's end
  };
  // Adds what memory processing took, and returns the time that is left for all else.
  double AddMemory(double step_ns);

  const WorkModel model_;
  std::atomic<bool> enabled_ = false;
  std::vector<Row> step_;
  int64_t begin_ns_ = 0;
};

}  // namespace mnemo::worker
