// One live request, composed of parts that each have one writer, which its comment names. Others read it.
//
// From submission to end all parts but `cancelled` are used by the engine thread alone.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/memory/pipeline.h"
#include "server/telemetry/energy/energy_spans.h"
#include "server/worker/engine.h"
#include "server/worker/resident_pages.h"
#include "server/worker/token_counts.h"

namespace mnemo::worker {

// Progress: the tokens of the sequence and how much of the prompt is scored. Written by StepSampler.
struct RequestProgress {
  std::vector<int32_t> ids;  // prompt, then output
  int next_scored = 0;       // position of the next prompt token to be reported
  bool counted = false;      // a penalty is on, and `counts` has the ids
  TokenCounts counts;
};

// Pages: where keys and values of the sequence are in the worker. Written by Scheduler.
struct RequestPages {
  // Page ids of positions 0.., as many as are computed or planned. A resident sequence has extra pages here
  // (devices::KvCacheShape) for all positions that it may have; its indexed layers are in `resident`.
  std::vector<int32_t> table;
  int published = 0;  // the first so many pages are in the prefix cache
  int reserved = 0;   // pages that the request may take without asking, those it has included
  int computed = 0;   // positions whose keys and values are in the pages
  ResidentPages resident;
};

// Admission: when the request runs. Written by Scheduler.
struct RequestAdmission {
  bool running = false;
  bool was_admitted = false;
  std::chrono::steady_clock::time_point first_admitted{};  // set with was_admitted
  uint64_t last_step = 0;                                  // the last step with a decode row of the request
  int preemptions = 0;
  int cached_tokens = 0;  // prompt tokens found in the prefix cache before the first preemption
};

// Report: what the caller has been told. Written by StepReport.
struct RequestReport {
  uint64_t event_turn = 0;                              // the engine's turn that event_index belongs to
  int event_index = -1;                                 // in that turn's events
  bool begun = false;                                   // an event with the first token was made
  std::chrono::steady_clock::time_point first_token{};  // set with begun
};

// Residence: where the index and K and V of indexed layers are. Written by RequestMemory; `share` before the
// request is submitted.
struct RequestResidence {
  Residency share;                           // not resident: K and V stay in the worker's pool
  memory::SequenceMemory* memory = nullptr;  // the pipeline's, kept through preemptions; nullptr: not open
  int kept_pages = 0;                        // the first pages of the sequence that the service has stored
  uint64_t told_generation = 0;              // of pages.resident, whose hot pages the pipeline knows
  std::vector<memory::MemoryStepStat> lost_steps;  // cost up to the loss of a service; `memory` counts on
  std::string why_not_resident;  // counted once it is clear where the request goes; empty: nothing to count
};

// Parking: the wait for a service that keeps the sequence. Written by Parking.
struct RequestParking {
  std::optional<std::chrono::steady_clock::time_point> lost_at;  // since when no service keeps the sequence
  std::chrono::steady_clock::time_point retry_at{};              // when a service may be asked again
};

// Spans: work for the request that has not been reported yet. Written by SpanRecorder.
struct RequestSpans {
  struct Work {
    double time_ns = 0;  // busy time of the device
    double bytes = 0;
    double operations = 0;  // multiply-adds
  };
  // On the worker's device and on that of the memory service: each kind of work (attribution::StepIndex) in
  // the engine steps from first_ns to last_ns.
  std::array<std::array<Work, attribution::kEnergySteps>, 2> work{};
  int64_t first_ns = 0;  // 0: nothing to report
  int64_t last_ns = 0;
  memory::Pipeline::StepCosts told;  // memory's costs that are in `work` or reported
};

class Request {
 public:
  using Clock = std::chrono::steady_clock;

  // `request` has passed CheckRequest. `arrival` counts requests.
  Request(EngineRequest request, uint64_t arrival, Clock::time_point submitted);

  // Allocates what the request needs while it runs, at the first call.
  void Prepare();

  // Whether it runs before, and is preempted after, `other`: by priority, then arrival.
  bool IsSenior(const Request& other) const {
    return spec.priority != other.spec.priority ? spec.priority < other.spec.priority
                                                : arrival < other.arrival;
  }

  bool resident() const { return residence.share.resident(); }
  int prompt_count() const { return prompt_count_; }
  int token_count() const { return static_cast<int>(progress.ids.size()); }
  int output_count() const { return token_count() - prompt_count_; }
  // Positions that keys and values are needed for in all: the last output token is not fed.
  int max_positions() const { return prompt_count_ + (spec.max_tokens > 0 ? spec.max_tokens - 1 : 0); }
  // Positions before it are prefilled, in chunks; later positions are fed one a step.
  int prefill_end() const { return prefill_end_; }
  bool prefilling() const { return pages.computed < prefill_end_; }
  bool scoring() const { return spec.prompt_logprobs >= 0 && progress.next_scored < prompt_count_; }
  // Keys and values of positions before it may come from the cache. Later ones are computed: their logits are
  // wanted, or they are decode steps.
  int reuse_end() const;
  // The request is not refused for its placement any more.
  bool has_begun() const { return spec.begun || report.begun; }

  void AppendOutput(int32_t id);
  // kNone while the request goes on.
  EngineFinish Outcome() const;

 private:
  const int prompt_count_;
  const int prefill_end_;
  bool prepared_ = false;

 public:
  // Progress comes first, since it takes the tokens out of the request that the specification is made of.
  RequestProgress progress;
  // Specification: what was asked for, but for prompt and generated tokens, which are in `progress`. Written
  // by the constructor.
  const EngineRequest spec;
  const uint64_t arrival;
  const Clock::time_point submitted;
  std::atomic<bool> cancelled{false};  // set on any thread
  RequestPages pages;
  RequestAdmission admission;
  RequestReport report;
  RequestResidence residence;
  RequestParking parking;
  RequestSpans spans;
};

}  // namespace mnemo::worker
