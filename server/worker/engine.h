// The engine: one thread that owns the batch. It does continuous batching, chunked prefill mixed with decode,
// paged KV with prefix reuse, preemption, cancellation and deadlines. It knows token ids only, and no gRPC.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/device.h"
#include "devices/sampling.h"
#include "server/memory/attention_settings.h"
#include "server/memory/pipeline.h"
#include "server/memory/step_stats.h"
#include "server/telemetry/energy/energy_spans.h"

namespace mnemo::model {
class Transformer;
}

namespace mnemo::worker {

struct EngineOptions {
  int max_batch_rows = 512;  // rows of one step: decode rows first, the rest prefill chunks
  int max_running = 32;      // requests that hold pages at once
  int max_waiting = 256;     // max_running + max_waiting requests are live at most
  int context_tokens = 0;    // longest sequence; 0: the model's
  int kv_pages = 0;          // size of the pool, >= 1
  int reserve_tokens = 256;  // admission reserves pages for the prompt and min(max_tokens, this)
  bool prefix_cache = true;
  int max_sessions = 1024;  // sessions remembered; the least recently used is forgotten
  // Sparse attention. Used when the transformer was made with indexed layers.
  memory::methods::MethodOptions methods;
  // Where requests go that name no placement.
  memory::AttentionSettings::Placement placement = memory::AttentionSettings::Placement::kMemoryService;
  memory::Pipeline::Attach attach_memory;  // empty: no memory service
  // Pages of layers that are not indexed, for resident sequences, besides kv_pages. Above 0, the memory
  // service keeps K and V of indexed layers of sequences with sparse attention; 0: the worker keeps them.
  int extra_pages = 0;
  // memory.kv_wait_ms: a sequence whose K and V are lost waits so long for a service, then ends UNAVAILABLE.
  std::chrono::milliseconds service_wait{10000};
  // Counted up at every turn of the engine thread, idle turns included, so that a watchdog sees that the
  // thread is alive. May be the device's counter. nullptr: not counted. Outlives the engine.
  std::atomic<uint64_t>* progress = nullptr;
};

struct EngineRequest {
  uint64_t id = 0;              // chosen by the caller; id and attempt are unique among live requests
  uint32_t attempt = 0;         // counts replays; echoed in every event
  std::string request_id;       // for logs
  std::vector<int32_t> prompt;  // not empty
  // Replay: output tokens that were sent already. They are fed through decode steps and make no events.
  std::vector<int32_t> generated;
  int32_t max_tokens = 0;        // output tokens in all, `generated` included; 0: only score the prompt
  bool lower_to_pool = false;    // lower a max_tokens that the pool has no room for, instead of refusing it
  std::vector<int32_t> end_ids;  // a sampled id among them is the last token
  devices::SamplingParams sampling;
  std::vector<devices::TokenBias> bias;
  int32_t logprobs = -1;             // alternatives for each generated token; -1: no log probabilities
  int32_t prompt_logprobs = -1;      // likewise for each prompt token
  int32_t prompt_logprobs_from = 0;  // the first prompt position that is scored
  int32_t decode_from = 0;           // prompt positions from it on are fed one by one as decode steps; 0: off
  int32_t priority = 0;              // lower ones first, then arrival
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::string session_id;  // empty: no session
  memory::AttentionSettings attention;
  // Replay: the client has had output already, so that no memory service is a reason to refuse the request.
  bool begun = false;
};

struct EngineToken {
  int32_t index = 0;  // of the output token; for a prompt token its position
  int32_t id = 0;
  bool has_logprob = false;
  devices::SampleResult detail;  // filled when has_logprob
};

enum class EngineFinish { kNone, kEndToken, kLength, kError };

// Work for a request on one device in the steps of [begin_ns, end_ns), CLOCK_MONOTONIC.
struct EngineSpan {
  attribution::EnergyStep step = attribution::EnergyStep::kDecode;
  std::string device;  // of the memory service, as in memory_steps; empty: the worker's own
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  // Busy time of the device for the request and step. Over all requests and steps at most the length.
  int64_t work_ns = 0;
  uint64_t bytes = 0;       // that the work reads and writes
  uint64_t operations = 0;  // its multiply-adds
};

// The result of one step for one request. Events of a request come in order; the one with finish != kNone is
// the last.
struct EngineEvent {
  uint64_t id = 0;
  uint32_t attempt = 0;
  std::vector<EngineToken> prompt_tokens;  // scored prompt positions, ascending
  std::vector<EngineToken> tokens;
  EngineFinish finish = EngineFinish::kNone;
  // With kError: CANCELLED, DEADLINE_EXCEEDED, FAILED_PRECONDITION, RESOURCE_EXHAUSTED or UNAVAILABLE.
  absl::Status status;
  bool refused = false;  // with kError: final; no other worker is to be tried
  // With finish != kNone, with the first token, and with sparse attention every few tokens:
  int32_t cached_prompt_tokens = 0;
  std::chrono::nanoseconds queue_time{0};    // submit to first admission
  std::chrono::nanoseconds prefill_time{0};  // first admission to first token (or end of scoring)
  std::chrono::nanoseconds decode_time{0};   // first token to the end
  int32_t preemptions = 0;
  int32_t max_tokens = 0;                            // the request's, lowered by lower_to_pool
  std::vector<memory::MemoryStepStat> memory_steps;  // cost of sparse attention up to this event
  // About every 50 ms of work and with finish, after SetReportsSpans(true). An event may have nothing else.
  std::vector<EngineSpan> spans;
  // With finish != kNone:
  int32_t memory_fallbacks = 0;        // times that it went on in the worker instead of the memory service
  std::string memory_fallback_reason;  // of the last fallback
};

struct EngineStats {
  uint64_t steps = 0;
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t kv_pages_used = 0;    // referenced by running requests
  int64_t kv_pages_cached = 0;  // kept for prefix reuse; a request may take them
  int64_t kv_pages_total = 0;
  int64_t extra_pages_used = 0;  // held by resident sequences
  int64_t extra_pages_total = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_queries_tokens = 0;  // prompt tokens looked up in the prefix cache
  uint64_t prefix_hit_tokens = 0;      // prompt tokens found there
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  memory::PipelineStats memory;
};

// Called on the engine thread. Must not block, and calls no function of the engine but Submit, Cancel and
// EndSession, which only queue.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  // Once a step, with all events of the step; not called without events.
  virtual void OnStep(std::vector<EngineEvent> events) = 0;
  // The next OnStep may take long to come: the step that begins computes prompts, or there is no step to
  // begin.
  virtual void BeforePause() {}
};

class Engine {
 public:
  // `transformer`, `device` and `sink` outlive the engine. Starts the thread. INVALID_ARGUMENT names the
  // option and its bound.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        model::Transformer* transformer,
                                                        devices::Device* device, EngineSink* sink);
  // Ends every request with CANCELLED and joins the thread.
  ~Engine();

  // The functions below may be called on any thread and do not block on a step.
  //
  // A request that Submit refuses makes no events. INVALID_ARGUMENT names field and bound, such as a request
  // that does not fit an empty pool; UNIMPLEMENTED: no such attention method; RESOURCE_EXHAUSTED: too many
  // are live.
  absl::Status Submit(EngineRequest request);
  // Takes effect within one step; the request ends with CANCELLED. Nothing happens to an unknown or finished
  // one.
  void Cancel(uint64_t id, uint32_t attempt);
  // Forgets the prefix that the session kept.
  void EndSession(const std::string& session_id);
  EngineStats Stats() const;
  // Whether events have spans from the next step on; not at first.
  void SetReportsSpans(bool reports);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::worker
