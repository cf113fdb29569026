// Sparse attention of a worker's sequences. The pipeline opens an index for each sequence and extends it with
// the computed positions (prepare). Relevancy and retrieval of a step's decode rows run between the layers
// (LayerMemory), in the worker or in the memory service as each sequence's placement says.
//
// The numeric invariant (devices/device.h) holds: a selection is a function of the query, the stored keys,
// the settings, the position and the first decode position. It does not depend on the placement.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/device.h"
#include "server/memory/attacher.h"
#include "server/memory/attention_settings.h"
#include "server/memory/memory_client.h"
#include "server/memory/methods/method.h"
#include "server/memory/shape.h"
#include "server/memory/step_stats.h"
#include "server/model/transformer.h"

namespace mnemo::memory {

struct PipelineOptions {
  MemoryShape shape;
  std::vector<int> layers;  // indexed layers of the model, ascending; shape.layers of them
  methods::MethodOptions methods;
  int max_queries = 0;     // decode rows of a step
  int context_tokens = 0;  // longest sequence
  int max_indexes = 0;     // sequences open at once, running and preempted
  int pages = 0;           // size of the KV pool
  // Whether the memory service may keep K and V of indexed layers, for sequences that OpenResident opens.
  bool kv_in_service = false;
  // Placement of sequences that ask for kAny. kMemoryService applies where there is a service.
  AttentionSettings::Placement placement = AttentionSettings::Placement::kMemoryService;
};

class SequenceMemory;

// Used by the engine thread alone, except for operations that the device's threads run.
class Pipeline final : public model::LayerMemory {
 public:
  // Makes an attachment to the memory service; runs on a thread of its own.
  using Attach = Attacher::Attach;

  // `device` and `cache` outlive the pipeline. `attach` may be empty: no service.
  static absl::StatusOr<std::unique_ptr<Pipeline>> Create(const PipelineOptions& options,
                                                          devices::Device* device, devices::KvCache* cache,
                                                          Attach attach);
  ~Pipeline() override;

  const PipelineOptions& options() const;

  bool service_attached() const;

  // Called before a sequence's first step. Creates an index with room for `max_positions`. Rows from position
  // `decode_begin` on select. `ids`: the tokens before that position; pages of records are shared with an
  // open sequence that begins with the same tokens. The pipeline owns the result until Close.
  //
  // Errors with placement kMemoryService, unless the sequence has `begun` elsewhere. RESOURCE_EXHAUSTED: the
  // service is full. UNAVAILABLE: it is absent. FAILED_PRECONDITION: none is configured, or it lacks a
  // capability, which the message names.
  absl::StatusOr<SequenceMemory*> Open(const AttentionSettings& settings, int max_positions, int decode_begin,
                                       std::span<const int32_t> ids, bool begun = false);
  // The same for a resident sequence: the service keeps K and V of its indexed layers. The worker has its
  // first and newest pages, and `hot_pages` pages of recent selections. Placement kAny means the service
  // here. FAILED_PRECONDITION: this worker has no service, or its service lacks an operation that the method
  // needs or cannot keep K and V.
  absl::StatusOr<SequenceMemory*> OpenResident(const AttentionSettings& settings, int max_positions,
                                               int decode_begin, std::span<const int32_t> ids, int hot_pages);
  void Close(SequenceMemory* memory);
  // True when a resident sequence has lost the data that the service kept. Only Close may follow.
  static bool Lost(const SequenceMemory& memory);
  // Resident sequences only: sets the pages for recent selections, as many as it was opened with. Called
  // before its first step and when the pages change; entries that they held are forgotten.
  static void SetHotPages(SequenceMemory* memory, std::span<const int32_t> pages);
  // Resident sequences only: positions [0, computed) are in `pages`, -1 for pages stored before. On return
  // the service has the complete pages, and the worker may free them. UNAVAILABLE: the sequence is lost.
  absl::Status Keep(SequenceMemory* memory, int computed, std::span<const int32_t> pages);
  // Number of the sequence's first pages that the service keeps.
  static int KeptPages(const SequenceMemory& memory);
  // Counts a sequence that was to be resident and is not.
  void CountFallback(std::string_view reason);

  // Called regularly, idle or not: detects that the service was lost or attached. True when either happened.
  bool Tend();

  // A step: Begin; AddRow for each row that may select, in order of rows; Forward with this as LayerMemory;
  // End.
  void Begin();
  // Called before the row at `position` is computed. `pages` hold the sequence's positions before it. Returns
  // the positions that the row attends to in indexed layers, valid until the next Begin; nullptr: all of
  // them. For a resident sequence `pages` are those of indexed layers, -1 for pages that the service keeps,
  // and stay unchanged until End.
  const devices::SparseSelection* AddRow(SequenceMemory* memory, int row, int position,
                                         std::span<const int32_t> pages);
  // For a step whose rows of a resident sequence attend to everything. K and V of these pages are fetched, a
  // layer at a time, into the named staging pages of the cache (devices::KvCacheShape::staging_pages).
  struct StagedPage {
    int page = 0;  // number within the sequence
    int32_t staging = 0;
  };
  void AddStaged(SequenceMemory* memory, std::span<const StagedPage> pages);
  // Counts a row of the step that attends to `attended` positions without a selection, so that rows with one
  // are charged their share of the attention time.
  void AddDense(int64_t attended);
  // True when no row of the step selects: Forward needs no LayerMemory.
  bool idle() const;
  // Prepares the step's queries; called between the last AddRow and Forward. UNAVAILABLE as End.
  absl::Status Seal();
  // Called after Forward. UNAVAILABLE: the service is gone or hangs. Its sequences are now in the worker, and
  // the caller repeats the step from Begin on.
  absl::Status End();

  // Makes records of the complete pages of positions [0, computed), which are in `pages`. The service makes
  // them in the background.
  void CatchUp(SequenceMemory* memory, int computed, std::span<const int32_t> pages);

  Ops OpsOf(int slot, const float* q) override;

  // Costs of a sequence's steps so far, by step (MemoryStepKind - 1), at the worker and at the service. They
  // begin at 0 with each opening. Does not allocate.
  struct StepCost {
    uint64_t time_ns = 0;
    uint64_t bytes = 0;
    uint64_t count = 0;  // as MemoryStepStat::count
  };
  struct StepCosts {
    std::array<StepCost, 4> worker{};
    std::array<StepCost, 4> service{};
  };
  static StepCosts CostsOf(const SequenceMemory& memory);
  // Name of the service that was attached last, as in Final.memory_steps.
  const std::string& service_name() const;

  // Returns the sequence's costs so far.
  std::vector<MemoryStepStat> StepsOf(const SequenceMemory& memory) const;
  // Returns how often the sequence continued in the worker instead of in the service. `reason` gets the
  // reason of the last time.
  int FallbacksOf(const SequenceMemory& memory, std::string* reason) const;
  PipelineStats Stats() const;

 private:
  struct Impl;
  explicit Pipeline(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::memory
