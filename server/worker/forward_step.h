// The forward pass of a step, with the memory pipeline between the layers where the step's rows need it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/kv_cache.h"
#include "server/memory/pipeline.h"
#include "server/model/transformer.h"
#include "server/worker/resident_pages.h"
#include "server/worker/scheduler.h"

namespace mnemo::worker {

// Used by the engine thread alone. Does not allocate after it is made.
class ForwardStep {
 public:
  // All arguments outlive the object. `pipeline`: nullptr when the model has no indexed layers.
  ForwardStep(model::Transformer* transformer, devices::KvCache* cache, memory::Pipeline* pipeline);

  // Computes the rows of `plan` (at most the transformer's max_rows and max_sequences), whose logits the
  // transformer has afterwards. Blocks until they are computed. A step that loses the memory service is
  // computed again, with the same result. False: K and V of one of its sequences are lost, and the step
  // counts for nothing.
  bool Run(std::span<const PlannedSequence> plan);

 private:
  absl::Status Try(std::span<const PlannedSequence> plan);
  void AddMemory(const PlannedSequence& planned, int32_t row, model::Transformer::Sequence* sequence);

  model::Transformer* const transformer_;
  devices::KvCache* const cache_;
  memory::Pipeline* const pipeline_;
  StagingArea staging_;
  std::vector<int32_t> ids_;                             // of the step's rows
  std::vector<model::Transformer::Sequence> sequences_;  // of the step
};

}  // namespace mnemo::worker
