// For tests: an engine over a tiny model on a device, and a sink that collects and checks events.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/device.h"
#include "devices/transport/memory_attachment.h"
#include "server/model/model_config.h"
#include "server/model/transformer.h"
#include "server/worker/engine.h"

namespace mnemo::worker {

// The result of one request.
struct EngineResult {
  std::vector<EngineToken> prompt_tokens;
  std::vector<EngineToken> tokens;
  std::vector<int> pauses;  // BeforePause calls up to each event with tokens
  EngineEvent last;         // the event with the finish; its tokens are in `tokens`
  EngineEvent first;        // the event with the first token, if any
  std::vector<std::vector<memory::MemoryStepStat>> memory_steps;  // of each event that had any
  int64_t order = -1;                                             // finishes of all requests, counted
  std::string broken;  // how the contract of events was broken; empty: it was not

  std::vector<int32_t> Ids() const;
};

// Thread-safe.
class CollectingSink : public EngineSink {
 public:
  void OnStep(std::vector<EngineEvent> events) override;
  void BeforePause() override { ++pauses_; }

  // Waits for the end of the request, at most a minute; then the result is empty, with `broken` set.
  EngineResult Wait(uint64_t id, uint32_t attempt = 0);
  // Waits until the request has so many output tokens, or has ended.
  void WaitForTokens(uint64_t id, size_t count, uint32_t attempt = 0);
  bool Finished(uint64_t id, uint32_t attempt = 0) const;
  size_t steps_with_events() const;
  // While the returned lock is held, the engine thread blocks at the end of the next step with events. These
  // events are recorded before it blocks. The lock is released before the engine is destroyed.
  std::unique_lock<std::mutex> HoldSteps() { return std::unique_lock(gate_); }

 private:
  void Record(std::vector<EngineEvent> events);
  static void Check(const EngineEvent& event, EngineResult* result);

  std::mutex gate_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<uint64_t, uint32_t>, EngineResult> results_;
  int64_t finished_ = 0;
  size_t steps_ = 0;
  int pauses_ = 0;  // the engine thread's
};

struct FixtureOptions {
  std::string device = "reference";
  int threads = 1;
  devices::KvType kv_type = devices::KvType::kF16;  // the reference device always uses kF32
  std::string architecture = "llama";
  int context_tokens = 1024;
  EngineOptions engine;
  int max_logit_rows = 16;
  std::string memory_address;  // of a memory service; empty: none
  std::function<std::unique_ptr<transport::MemoryAttachment>(std::unique_ptr<transport::MemoryAttachment>)>
      wrap_attachment;
  int dense_layers = 0;  // first full-attention layers that attention methods leave alone
};

// Throws std::runtime_error when something cannot be made.
class EngineFixture {
 public:
  explicit EngineFixture(const FixtureOptions& options);
  ~EngineFixture();

  Engine& engine() { return *engine_; }
  CollectingSink& sink() { return sink_; }
  int vocabulary() const { return vocabulary_; }
  devices::KvType kv_type() const { return device_->info().kv_type; }
  std::atomic<uint64_t>& progress() { return progress_; }
  // Submits and waits; throws when it is refused.
  EngineResult Run(EngineRequest request);
  // Stops the engine; requests that are there end with CANCELLED.
  void StopEngine() { engine_.reset(); }
  // Engine::Create over the same model; the fixture's own engine must then be idle.
  absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options, EngineSink* sink);

 private:
  std::vector<std::byte> file_;
  std::atomic<uint64_t> progress_{0};
  std::unique_ptr<devices::Device> device_;
  std::unique_ptr<devices::WeightImage> weights_;
  std::unique_ptr<model::Transformer> transformer_;
  int vocabulary_ = 0;
  CollectingSink sink_;
  std::unique_ptr<Engine> engine_;
};

// For tests with numbered schedules: F16 and 8 bits in turn, the two types that engine.kv_type auto may
// choose.
inline devices::KvType KvTypeOf(int schedule) {
  return schedule % 2 == 0 ? devices::KvType::kF16 : devices::KvType::kQ8;
}

// Whether ids, indexes and all bits of the details are equal.
bool SameToken(const EngineToken& a, const EngineToken& b);
bool SameTokens(const std::vector<EngineToken>& a, const std::vector<EngineToken>& b);

// Names of the devices that this build has.
std::vector<std::string> DeviceKindNames();

}  // namespace mnemo::worker
