// One live request as the engine thread sees it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/worker/engine.h"
#include "server/worker/resident_pages.h"
#include "server/worker/token_counts.h"

namespace mnemo::worker {

class Request {
 public:
  using Clock = std::chrono::steady_clock;

  // `request` has passed CheckRequest. `arrival` counts requests.
  Request(EngineRequest request, uint64_t arrival, Clock::time_point submitted);

  // Allocates all that the request needs while it runs; called once, at the first admission.
  void Prepare();

  // Runs before, and is preempted after, `other`: by priority, then arrival.
  bool IsSenior(const Request& other) const {
    return spec.priority != other.spec.priority ? spec.priority < other.spec.priority
                                                : arrival < other.arrival;
  }

  int prompt_count() const { return prompt_count_; }
  int output_count() const { return static_cast<int>(ids.size()) - prompt_count_; }
  // Positions that keys and values are ever needed for: the last output token is not fed.
  int max_positions() const { return prompt_count_ + (spec.max_tokens > 0 ? spec.max_tokens - 1 : 0); }
  // Positions before it are prefilled, in chunks; those from it on are fed one a step.
  int prefill_end() const { return prefill_end_; }
  bool prefilling() const { return computed < prefill_end_; }
  bool scoring() const { return spec.prompt_logprobs >= 0 && next_scored < prompt_count_; }
  // Keys and values of positions before it may come from the cache; later ones are computed, since their
  // logits are wanted or since they are decode steps.
  int reuse_end() const;

  void AppendOutput(int32_t id);
  // kNone while the request goes on.
  EngineFinish Outcome() const;

  EngineRequest spec;  // without prompt and generated, which are in `ids`
  const uint64_t arrival;
  const Clock::time_point submitted;
  std::atomic<bool> cancelled{false};  // set on any thread

  // What follows belongs to the engine thread.
  std::vector<int32_t> ids;    // prompt, then output
  std::vector<int32_t> pages;  // of positions 0.., as many as are computed or planned; the first
                               // `published` of them are in the prefix cache
  // Resident sequences: `pages` are extra ones (devices::KvCacheShape), all that it may need, and hold no
  // indexed layers. Those stand in resident.indexed().
  Residency residency;
  ResidentPages resident;
  std::vector<int32_t> staged_pages;  // of a step: resident.indexed() and staging pages
  int kept_pages = 0;                 // that the service has
  uint64_t told_generation = 0;       // of resident.hot(), that the pipeline knows
  // Since when there is no service that keeps it.
  std::optional<Clock::time_point> lost_at;
  Clock::time_point parked_until;  // when it may ask a service again
  int published = 0;
  memory::SequenceMemory* memory = nullptr;  // the pipeline's; kept through preemptions
  // What was spent before K and V were lost with the service, since when `memory` is another one.
  std::vector<memory::MemoryStepStat> lost_steps;
  std::string why_not_resident;  // of a request that was to be; counted when it is clear where it goes
  int reserved = 0;              // pages it may take without asking, those it has included
  int computed = 0;              // positions whose keys and values are in the pages
  int next_scored = 0;           // position of the next prompt token to be reported
  TokenCounts counts;            // filled when a penalty is on
  bool counted = false;

  bool prepared = false;
  bool was_admitted = false;
  bool running = false;
  uint64_t last_step = 0;   // that had a decode row of it
  uint64_t event_turn = 0;  // of the engine, that event_index belongs to
  int event_index = -1;     // in that turn's events
  bool reported = false;    // an event with the first token was made
  int cached_tokens = 0;    // prompt tokens found in the cache before the first preemption
  int preemptions = 0;
  Clock::time_point admitted{};
  Clock::time_point first_token{};

 private:
  int prompt_count_;
  int prefill_end_;
};

}  // namespace mnemo::worker
