// The engine: one thread that owns the batch. Continuous batching, chunked prefill mixed with decode, paged
// KV with prefix reuse, preemption, cancellation and deadlines. Knows token ids only, and no gRPC.
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

namespace mnemo::model {
class Transformer;
}

namespace mnemo::worker {

struct EngineOptions {
  int max_batch_rows = 512;  // rows of one step: decode rows first, the rest prefill chunks
  int max_running = 32;      // requests that hold pages at once
  int max_waiting = 256;     // more than max_running + max_waiting live requests: RESOURCE_EXHAUSTED
  int context_tokens = 0;    // longest sequence; 0 = the model's
  int kv_pages = 0;          // size of the pool, >= 1
  int reserve_tokens = 256;  // admission reserves prompt + min(max_tokens, this)
  bool prefix_cache = true;
  int max_sessions = 1024;  // sessions remembered; the least recently used is forgotten
  // Sparse attention, for a transformer that was made with indexed layers.
  memory::methods::MethodOptions methods;
  memory::AttentionSettings::Placement placement = memory::AttentionSettings::Placement::kMemoryService;
  memory::Pipeline::Attach attach_memory;  // empty: no memory service
  // Above 0, K and V of indexed layers of sparse sequences are kept in the memory service; so many pages of
  // the other layers are there for them, besides kv_pages.
  int extra_pages = 0;
  // A sequence that lost what the service kept waits so long for another one, then ends UNAVAILABLE.
  std::chrono::milliseconds service_wait{10000};
  // Counted up at every turn of the engine thread, idle ones too, if given (may be the device's counter): a
  // watchdog sees that the thread is alive. Outlives the engine.
  std::atomic<uint64_t>* progress = nullptr;
};

struct EngineRequest {
  uint64_t id = 0;              // chosen by the caller, unique among live requests
  uint32_t attempt = 0;         // counts replays; echoed in every event
  std::string request_id;       // for logs
  std::vector<int32_t> prompt;  // not empty
  std::vector<int32_t>
      generated;  // replay: tokens already sent, fed through decode steps; no events are made for them
  int32_t max_tokens = 0;        // of output in all, `generated` included; 0 = score the prompt only
  bool lower_to_pool = false;    // max_tokens that the pool has no room for is lowered, not refused
  std::vector<int32_t> end_ids;  // a sampled id among them is the last token
  devices::SamplingParams sampling;
  std::vector<devices::TokenBias> bias;
  int32_t logprobs = -1;  // alternatives for each generated token; -1 = none
  int32_t prompt_logprobs = -1;
  int32_t prompt_logprobs_from = 0;
  int32_t decode_from = 0;  // 0 = off; else prompt positions >= this are fed one by one as decode steps
  int32_t priority = 0;     // lower first, then arrival
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::string session_id;  // empty = none
  memory::AttentionSettings attention;
  bool begun = false;  // replay: the client has had something of it, and no memory service is a reason to
                       // refuse it any more
};

struct EngineToken {
  int32_t index = 0;  // of the output token, or the position in the prompt
  int32_t id = 0;
  bool has_logprob = false;
  devices::SampleResult detail;  // filled when has_logprob
};

enum class EngineFinish { kNone, kEndToken, kLength, kError };

// What one step did for one request. Events of a request come in order; after one with finish != kNone there
// are no more.
struct EngineEvent {
  uint64_t id = 0;
  uint32_t attempt = 0;
  std::vector<EngineToken> prompt_tokens;  // scored prompt positions, ascending
  std::vector<EngineToken> tokens;
  EngineFinish finish = EngineFinish::kNone;
  absl::Status
      status;  // with kError: CANCELLED, DEADLINE_EXCEEDED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL
  bool refused = false;  // with kError: for good, before it has begun, wherever it is sent
  // With finish != kNone, with the first token, and with sparse attention now and then:
  int32_t cached_prompt_tokens = 0;
  std::chrono::nanoseconds queue_time{0};    // submit to first admission
  std::chrono::nanoseconds prefill_time{0};  // first admission to first token (or end of scoring)
  std::chrono::nanoseconds decode_time{0};   // first token to the end
  int32_t preemptions = 0;
  int32_t max_tokens = 0;                            // the request's, lowered if it was to be
  std::vector<memory::MemoryStepStat> memory_steps;  // up to here
  // With finish != kNone:
  int32_t memory_fallbacks = 0;        // times that it went on in the worker instead of in the memory service
  std::string memory_fallback_reason;  // of the last one
};

struct EngineStats {
  uint64_t steps = 0;
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t kv_pages_used = 0;    // referenced by running requests
  int64_t kv_pages_cached = 0;  // kept for prefix reuse, free to be taken
  int64_t kv_pages_total = 0;
  int64_t extra_pages_used = 0;  // of sequences whose K and V the memory service keeps
  int64_t extra_pages_total = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_queries_tokens = 0;  // prompt tokens looked up in the prefix cache
  uint64_t prefix_hit_tokens = 0;      // of those, found
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  memory::PipelineStats memory;
};

// Called on the engine thread, once a step, with all that the step did. Must not block and must not call back
// into the engine other than Submit, Cancel and EndSession, which only queue.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  virtual void OnStep(std::vector<EngineEvent> events) = 0;
  // The next OnStep may be long in coming: the step that begins computes prompts, or there is none to begin.
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

  // Thread-safe, do not block on a step. A request that Submit refuses makes no events: INVALID_ARGUMENT
  // names field and bound (does not fit an empty pool, id outside the vocabulary, longer than the context);
  // RESOURCE_EXHAUSTED: max_waiting.
  absl::Status Submit(EngineRequest request);
  // Takes effect within one step; the request then ends with CANCELLED. Unknown or finished: nothing happens.
  void Cancel(uint64_t id, uint32_t attempt);
  // Forgets what the session kept.
  void EndSession(const std::string& session_id);
  EngineStats Stats() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::worker
