// Estimate of a row's part in the work of an engine step: multiply-adds and bytes of the operations that
// Transformer::Forward lists.
#pragma once

#include "devices/kv_cache.h"
#include "server/model/transformer.h"

namespace mnemo::worker {

// Figures of a network, for one row.
struct WorkModel {
  double row_macs = 0;      // multiply-adds of all matrices of the layers
  double logit_macs = 0;    // of the output matrix
  double weight_bytes = 0;  // of the layers' matrices, read once a step
  double output_bytes = 0;  // of the output matrix, read once a step with logits
  // For each attended position, in layers of full attention, in those that may attend to a selection, and in
  // layers with a window.
  double full_macs = 0, indexed_macs = 0, windowed_macs = 0;
  double full_bytes = 0, indexed_bytes = 0, windowed_bytes = 0;
  int window = 0;  // in tokens; 0: no layer has one
  // To score one stored key for all query heads of its KV head.
  double score_macs = 0;
};

WorkModel WorkModelOf(const model::Transformer& transformer, const devices::KvCache& cache);

// Rows of one sequence in a step.
struct SequenceRows {
  int row_count = 0;
  int position_begin = 0;
  int logit_rows = 0;
  bool selects = false;  // attention of indexed layers is accounted for as the step `apply`
};

struct RowWork {
  double macs = 0;
  double bytes = 0;
};

// `step_rows`, `step_logit_rows`: of the whole step, whose rows share the reading of weights.
RowWork WorkOf(const WorkModel& model, const SequenceRows& rows, int step_rows, int step_logit_rows);

}  // namespace mnemo::worker
