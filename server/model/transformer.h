// The forward pass of the supported architectures, as a list of device operations.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/device.h"
#include "server/model/model_config.h"

namespace mnemo::model {

struct TransformerOptions {
  int max_rows = 512;       // rows of one Forward, >= 1
  int max_logit_rows = 32;  // rows of one Logits, >= 1
  int max_sequences = 64;   // sequences of one Forward
  // Layers whose decode rows may attend to a selection, ascending; full-attention layers only.
  std::vector<int> indexed_layers;
};

// What a step does between storing keys and attention in an indexed layer, for sequences that attend to a
// selection.
class LayerMemory {
 public:
  // Run in this order: `select`, then `fetch` of what is to be attended to and kept elsewhere, before the
  // layer's attention; `after` behind it.
  struct Ops {
    std::array<devices::HostOp, 6> select;
    std::array<devices::HostOp, 2> fetch;
    devices::HostOp after;
  };
  virtual ~LayerMemory() = default;
  // Called while the list of a Forward is made. slot: index in TransformerOptions::indexed_layers. q: device
  // memory, [rows, heads, head_dim], of this layer when the operations run.
  virtual Ops OpsOf(int slot, const float* q) = 0;
};

// Not thread-safe. Forward and Logits do not allocate after Create.
class Transformer {
 public:
  // `weights` and `device` outlive the object. INVALID_ARGUMENT names a tensor that is absent or of the wrong
  // shape.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(const ModelConfig& config,
                                                             const devices::WeightImage& weights,
                                                             devices::Device* device,
                                                             const TransformerOptions& options);
  ~Transformer();

  const ModelConfig& config() const;
  const TransformerOptions& options() const;
  devices::KvCacheShape KvShape(int pages) const;

  // Consecutive rows of one sequence.
  struct Sequence {
    int row_count = 0;
    int position_begin = 0;
    const int32_t* pages = nullptr;  // page ids of positions [0, position_begin + row_count)
    // The same in indexed layers where they differ from `pages` (KvCacheShape::extra_pages); nullptr: as
    // there. -1: a page that none of the rows attends to there.
    const int32_t* indexed_pages = nullptr;
    // What its row attends to in indexed layers; nullptr: to everything.
    const devices::SparseSelection* sparse = nullptr;
  };
  // Runs all layers over the rows, sequences one after the other, writing their keys and values into `cache`.
  // ids: [sum of row_count], each in [0, vocabulary). The hidden states stay until the next Forward.
  // `memory`: what fills the selections, when a sequence has one.
  void Forward(devices::KvCache* cache, std::span<const int32_t> ids, std::span<const Sequence> sequences,
               LayerMemory* memory = nullptr);
  // Raw logits [rows.size(), vocabulary] of rows of the last Forward, in device memory, valid until the next
  // call.
  const float* Logits(std::span<const int32_t> rows);

 private:
  struct Impl;
  explicit Transformer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::model
