// A model file loaded on one device, with a page pool: for tests at the level of the forward pass.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/device.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/transformer.h"

namespace mnemo::golden {

// One sequence with pages of its own.
struct RunnerSequence {
  std::vector<int32_t> pages;
  int position = 0;  // of the next token
};

class ModelRunner {
 public:
  // `file` outlives the object only during Create. Pages for `sequences` sequences of `context_tokens`.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const model::GgufFile& file,
                                                             const devices::DeviceOptions& device_options,
                                                             const model::TransformerOptions& options,
                                                             int sequences, int context_tokens);

  const model::ModelConfig& config() const { return transformer_->config(); }
  devices::Device& device() { return *device_; }
  model::Transformer& transformer() { return *transformer_; }
  const devices::WeightImage& weights() const { return *weights_; }
  devices::KvCache& cache() { return *cache_; }
  int vocabulary() const { return config().vocabulary; }

  // The next token of sequence `index` goes to `position`; earlier positions stay as they are.
  void Restart(int index, int position = 0) { sequences_[static_cast<size_t>(index)].position = position; }

  // Page id of the sequence's tokens [page * kPageTokens, (page + 1) * kPageTokens).
  int32_t PageOf(int sequence, int page) const {
    return sequences_[static_cast<size_t>(sequence)].pages[static_cast<size_t>(page)];
  }

  // Appends tokens to a sequence each, in one Forward.
  struct Chunk {
    int sequence = 0;
    std::span<const int32_t> ids;
  };
  void Forward(std::span<const Chunk> chunks, model::LayerMemory* memory = nullptr);
  // Logits of rows of the last Forward, [rows.size(), vocabulary], copied to the host.
  std::vector<float> Logits(std::span<const int32_t> rows);

  // Token of highest logit (lowest id of equals) after each prompt, `count` times, all prompts in one batch;
  // sequence i gets prompt i. Prompts are fed in chunks of at most max_rows.
  std::vector<std::vector<int32_t>> Greedy(std::span<const std::vector<int32_t>> prompts, int count);

 private:
  ModelRunner() = default;
  std::unique_ptr<devices::Device> device_;
  std::unique_ptr<devices::WeightImage> weights_;
  std::unique_ptr<model::Transformer> transformer_;
  std::unique_ptr<devices::KvCache> cache_;
  std::vector<RunnerSequence> sequences_;
};

}  // namespace mnemo::golden
