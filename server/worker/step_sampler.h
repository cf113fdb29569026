// The logits that a step is for: scores of prompt tokens and the next output tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/device.h"
#include "devices/sampling.h"
#include "server/model/transformer.h"
#include "server/worker/scheduler.h"
#include "server/worker/step_report.h"

namespace mnemo::worker {

// Used by the engine thread alone. Does not allocate after it is made, but for the tokens in events. Writes
// RequestProgress.
class StepSampler {
 public:
  // All arguments outlive the object.
  StepSampler(model::Transformer* transformer, devices::Device* device, StepReport* report);

  // Chooses the rows of `plan` whose logits are needed. Before Scheduler::Commit, since the positions are
  // those to be computed.
  void Collect(std::span<const PlannedSequence> plan);
  // After the forward pass and Commit: samples what Collect chose and puts the tokens into the requests and
  // their events. Returns the number of output tokens.
  int Sample();

 private:
  // Logits of one row of the step and their use: the next output token, or the score of the prompt token at
  // `position` + 1.
  struct Want {
    Request* request = nullptr;
    int32_t position = 0;
    bool output = false;
  };

  void CollectScores(Request* request, int end, int32_t first_row);
  devices::SampleRow RowOf(const Want& want, const float* logits) const;
  void Take(const devices::SampleResult& result, const Want& want);

  model::Transformer* const transformer_;
  devices::Device* const device_;
  StepReport* const report_;
  const int vocabulary_;
  std::vector<Want> wants_;
  std::vector<int32_t> want_rows_;              // [wants_]
  std::vector<devices::SampleRow> rows_;        // of one call of the device
  std::vector<devices::SampleResult> results_;  // [max_logit_rows]
};

}  // namespace mnemo::worker
