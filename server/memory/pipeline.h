// Sparse attention of a worker's sequences: opens an index for each, keeps it as long as what was computed
// (prepare), and puts relevancy and retrieval of a step's decode rows between the layers (LayerMemory), where
// the placement of each sequence says.
//
// The numeric invariant (devices/device.h) holds with it: a selection is a function of the query, the stored
// keys, settings, position and the first decode position; it does not depend on the placement.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/device.h"
#include "server/memory/attention_settings.h"
#include "server/memory/memory_client.h"
#include "server/memory/method.h"
#include "server/memory/step_stats.h"
#include "server/model/transformer.h"

namespace mnemo::memory {

struct PipelineOptions {
  MemoryShape shape;
  std::vector<int> layers;  // of the model, ascending; shape.layers of them
  MethodOptions methods;
  int max_queries = 0;     // decode rows of a step
  int context_tokens = 0;  // longest sequence
  int max_indexes = 0;     // sequences open at once, running and preempted
  int pages = 0;           // of the pool
  // Where sequences go that say kAny; the service when there is one.
  AttentionSettings::Placement placement = AttentionSettings::Placement::kMemoryService;
};

class SequenceMemory;

// Used by the engine thread alone, but for what the device's threads run.
class Pipeline final : public model::LayerMemory {
 public:
  // Makes an attachment to the memory service, or says why not; runs on a thread of its own.
  using Attach = std::function<absl::StatusOr<std::unique_ptr<MemoryClient>>()>;

  // `device` and `cache` outlive the pipeline. `attach` may be empty: no service.
  static absl::StatusOr<std::unique_ptr<Pipeline>> Create(const PipelineOptions& options,
                                                          devices::Device* device,
                                                          const devices::KvCache* cache, Attach attach);
  ~Pipeline() override;

  const PipelineOptions& options() const;

  // Before a sequence's first step: an index that it can grow to `max_positions` in. Its rows from position
  // `decode_begin` on select. `ids` of the positions before it are known: a sequence that is open with the
  // same beginning shares its pages of records. Placement kMemoryService, unless the sequence has `begun`
  // elsewhere: RESOURCE_EXHAUSTED, the service is full; UNAVAILABLE, it is not there; FAILED_PRECONDITION,
  // there is to be none.
  absl::StatusOr<SequenceMemory*> Open(const AttentionSettings& settings, int max_positions, int decode_begin,
                                       std::span<const int32_t> ids, bool begun = false);
  void Close(SequenceMemory* memory);

  // Now and then, idle or not: notices that the service went or came. True when it did.
  bool Tend();

  // A step: Begin; AddRow for each row that may select, in order of rows; Forward with this as LayerMemory;
  // End.
  void Begin();
  // Before the row at `position` is computed. `pages` hold the sequence's positions before it. What the row
  // attends to in indexed layers, valid until the next Begin; nullptr: everything.
  const devices::SparseSelection* AddRow(SequenceMemory* memory, int row, int position,
                                         std::span<const int32_t> pages);
  // A row of the step that attends to `attended` positions without a selection: for the shares of the time
  // that attention takes.
  void AddDense(int64_t attended);
  // Nothing to select: Forward needs no LayerMemory.
  bool idle() const;
  // Settles the selections to come; between the last AddRow and Forward. UNAVAILABLE as End.
  absl::Status Seal();
  // After Forward. UNAVAILABLE: the service went or hung; its sequences are in the worker now and the step is
  // to be done again, from Begin on.
  absl::Status End();

  // Positions [0, computed) are in `pages`: their complete pages become records, in the background where the
  // service makes them.
  void CatchUp(SequenceMemory* memory, int computed, std::span<const int32_t> pages);

  Ops OpsOf(int slot, const float* q) override;

  // What the sequence spent so far.
  std::vector<MemoryStepStat> StepsOf(const SequenceMemory& memory) const;
  // How often it went on in the worker instead of in the service, and why the last time.
  int FallbacksOf(const SequenceMemory& memory, std::string* reason) const;
  PipelineStats Stats() const;

 private:
  struct Impl;
  explicit Pipeline(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Of a transformer that was made with indexed layers.
MemoryShape ShapeOf(const model::Transformer& transformer);
// Full-attention layers of the model but the first `dense_layers` of them, ascending.
std::vector<int> IndexedLayers(const model::ModelConfig& config, int dense_layers);

}  // namespace mnemo::memory
