#include "server/worker/work_model.h"

#include <algorithm>

namespace mnemo::worker {
namespace {

// Sum over the rows of the positions that they attend to, in a layer with that window (0: none).
double AttendedPositions(const SequenceRows& rows, int window) {
  double sum = 0;
  const int end = rows.position_begin + rows.row_count;
  if (window == 0) {
    return static_cast<double>(rows.row_count) *
           (static_cast<double>(rows.position_begin) + (static_cast<double>(rows.row_count) + 1) / 2);
  }
  for (int position = rows.position_begin; position < end; ++position) sum += std::min(position + 1, window);
  return sum;
}

// Positions whose K and V the rows read: once for all rows of the sequence.
double ReadPositions(const SequenceRows& rows, int window) {
  const int end = rows.position_begin + rows.row_count;
  return window == 0 ? end : std::min(end, window + rows.row_count - 1);
}

}  // namespace

WorkModel WorkModelOf(const model::Transformer& transformer, const devices::KvCache& cache) {
  const model::ModelConfig& config = transformer.config();
  WorkModel work;
  const double heads_dim = static_cast<double>(config.heads) * config.head_dim;
  const double kv_dim = static_cast<double>(config.kv_heads) * config.head_dim;
  const double dim = config.dim;
  work.row_macs =
      config.layers * (dim * (heads_dim + 2 * kv_dim) + heads_dim * dim + 3 * dim * config.ffn_dim);
  work.logit_macs = dim * config.vocabulary;
  const double bytes_per_weight = config.parameters > 0 ? static_cast<double>(config.weight_bytes) /
                                                              static_cast<double>(config.parameters)
                                                        : 0;
  work.weight_bytes = work.row_macs * bytes_per_weight;
  work.output_bytes = work.logit_macs * bytes_per_weight;
  const double position_bytes =
      config.kv_heads *
      static_cast<double>(devices::StoredKvBytes(devices::StoredForm(cache.shape().type), config.head_dim));
  const auto& indexed = transformer.options().indexed_layers;
  for (int layer = 0; layer < config.layers; ++layer) {
    const bool is_windowed =
        !config.layer_is_windowed.empty() && config.layer_is_windowed[static_cast<size_t>(layer)];
    const bool is_indexed = std::find(indexed.begin(), indexed.end(), layer) != indexed.end();
    (is_windowed ? work.windowed_macs : is_indexed ? work.indexed_macs : work.full_macs) += 2 * heads_dim;
    (is_windowed ? work.windowed_bytes : is_indexed ? work.indexed_bytes : work.full_bytes) += position_bytes;
  }
  work.window = config.sliding_window;
  work.score_macs = heads_dim / config.kv_heads;
  return work;
}

RowWork WorkOf(const WorkModel& model, const SequenceRows& rows, int step_rows, int step_logit_rows) {
  RowWork work;
  const double count = rows.row_count;
  work.macs = count * model.row_macs + rows.logit_rows * model.logit_macs;
  work.bytes = model.weight_bytes * count / std::max(1, step_rows) +
               model.output_bytes * rows.logit_rows / std::max(1, step_logit_rows);
  const double full_macs = model.full_macs + (rows.selects ? 0 : model.indexed_macs);
  const double full_bytes = model.full_bytes + (rows.selects ? 0 : model.indexed_bytes);
  work.macs += full_macs * AttendedPositions(rows, 0);
  work.bytes += full_bytes * ReadPositions(rows, 0);
  if (model.windowed_macs > 0) {
    work.macs += model.windowed_macs * AttendedPositions(rows, model.window);
    work.bytes += model.windowed_bytes * ReadPositions(rows, model.window);
  }
  return work;
}

}  // namespace mnemo::worker
