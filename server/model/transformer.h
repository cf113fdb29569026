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
  // Rows of one Forward, >= 1.
  int max_rows = 512;
  // Rows of one Logits, >= 1.
  int max_logit_rows = 32;
  // Sequences of one Forward.
  int max_sequences = 64;
  // Layers whose decode rows may attend to a selection, ascending; full-attention layers only.
  std::vector<int> indexed_layers;
};

// Host operations of a step in an indexed layer, between storing keys and attention, for sequences that
// attend to a selection.
class LayerMemory {
 public:
  // The operations run in this order: `select`, then `fetch` of attended entries that are stored elsewhere,
  // then the layer's attention, then `after`.
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
  // `weights` and `device` must outlive the object. INVALID_ARGUMENT names a tensor that is absent or of the
  // wrong shape.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(const ModelConfig& config,
                                                             const devices::WeightImage& weights,
                                                             devices::Device* device,
                                                             const TransformerOptions& options);
  ~Transformer();

  const ModelConfig& config() const;
  const TransformerOptions& options() const;
  // Returns the shape of a KV cache for this model; indexed layers are gather layers.
  devices::KvCacheShape KvShape(int pages) const;

  // Consecutive rows of one sequence.
  struct Sequence {
    int row_count = 0;
    int position_begin = 0;
    // Page ids of positions [0, position_begin + row_count).
    const int32_t* pages = nullptr;
    // Page ids in indexed layers where they differ from `pages` (KvCacheShape::extra_pages); nullptr: no
    // difference. -1: a page to which none of the rows attends in those layers.
    const int32_t* indexed_pages = nullptr;
    // Positions to which its row attends in indexed layers; nullptr: all.
    const devices::SparseSelection* sparse = nullptr;
  };
  // Runs all layers over the rows, sequence after sequence, and writes their keys and values into `cache`.
  // ids: [sum of row_count], each in [0, vocabulary). The hidden states stay valid until the next Forward.
  // `memory` fills the selections when a sequence has one.
  void Forward(devices::KvCache* cache, std::span<const int32_t> ids, std::span<const Sequence> sequences,
               LayerMemory* memory = nullptr);
  // Returns raw logits [rows.size(), vocabulary] of rows of the last Forward, in device memory, valid until
  // the next call.
  const float* Logits(std::span<const int32_t> rows);

 private:
  struct Impl;
  explicit Transformer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::model
