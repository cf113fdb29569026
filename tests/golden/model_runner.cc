#include "tests/golden/model_runner.h"

#include <algorithm>
#include <numeric>

namespace mnemo::golden {

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(const model::GgufFile& file,
                                                                 const devices::DeviceOptions& device_options,
                                                                 const model::TransformerOptions& options,
                                                                 int sequences, int context_tokens) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner());
  MNEMO_ASSIGN_OR_RETURN(const model::ModelConfig config, model::ReadModelConfig(file));
  MNEMO_ASSIGN_OR_RETURN(const std::vector<devices::TensorSource> sources,
                         model::WeightSources(file, config));
  MNEMO_ASSIGN_OR_RETURN(runner->device_, devices::CreateDevice(device_options));
  const devices::WeightPacker& packer = runner->device_->packer();
  MNEMO_ASSIGN_OR_RETURN(const UniqueFd image, devices::BuildWeightImage(packer, sources, file.path()));
  MNEMO_ASSIGN_OR_RETURN(runner->weights_, devices::WeightImage::Map(image.get(), packer.layout()));
  MNEMO_ASSIGN_OR_RETURN(runner->transformer_, model::Transformer::Create(config, *runner->weights_,
                                                                          runner->device_.get(), options));
  const int sequence_pages = (context_tokens + devices::kPageTokens - 1) / devices::kPageTokens;
  MNEMO_ASSIGN_OR_RETURN(runner->cache_, runner->device_->CreateKvCache(
                                             runner->transformer_->KvShape(sequences * sequence_pages)));
  // Pages of a sequence are neither neighbours nor in order, as in a pool that has been used for a while.
  for (int s = 0; s < sequences; ++s) {
    RunnerSequence sequence;
    for (int page = sequence_pages - 1; page >= 0; --page) sequence.pages.push_back(page * sequences + s);
    runner->sequences_.push_back(std::move(sequence));
  }
  return runner;
}

void ModelRunner::Forward(std::span<const Chunk> chunks, model::LayerMemory* memory) {
  std::vector<int32_t> ids;
  std::vector<model::Transformer::Sequence> sequences;
  for (const Chunk& chunk : chunks) {
    RunnerSequence& sequence = sequences_[static_cast<size_t>(chunk.sequence)];
    const int count = static_cast<int>(chunk.ids.size());
    MNEMO_CHECK(sequence.position + count <= static_cast<int>(sequence.pages.size()) * devices::kPageTokens);
    ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
    sequences.push_back(
        {.row_count = count, .position_begin = sequence.position, .pages = sequence.pages.data()});
    sequence.position += count;
  }
  transformer_->Forward(cache_.get(), ids, sequences, memory);
}

std::vector<float> ModelRunner::Logits(std::span<const int32_t> rows) {
  const float* logits = transformer_->Logits(rows);
  std::vector<float> host(rows.size() * static_cast<size_t>(vocabulary()));
  device_->Copy(host.data(), logits, host.size() * sizeof(float));
  return host;
}

std::vector<std::vector<int32_t>> ModelRunner::Greedy(std::span<const std::vector<int32_t>> prompts,
                                                      int count) {
  std::vector<std::vector<int32_t>> tokens(prompts.size());
  const auto append = [&](size_t s, std::span<const float> logits) {
    const auto best = std::max_element(logits.begin(), logits.end());
    tokens[s].push_back(static_cast<int32_t>(best - logits.begin()));
  };
  const size_t max_rows = static_cast<size_t>(transformer_->options().max_rows);
  for (size_t s = 0; s < prompts.size(); ++s) {
    std::span<const int32_t> rest = prompts[s];
    int32_t last = 0;
    while (!rest.empty()) {
      const Chunk chunk{static_cast<int>(s), rest.first(std::min(rest.size(), max_rows))};
      Forward({&chunk, 1});
      last = static_cast<int32_t>(chunk.ids.size()) - 1;
      rest = rest.subspan(chunk.ids.size());
    }
    append(s, Logits({&last, 1}));
  }
  std::vector<int32_t> rows(prompts.size());
  std::iota(rows.begin(), rows.end(), 0);
  for (int step = 1; step < count; ++step) {
    std::vector<Chunk> chunks;
    for (size_t s = 0; s < prompts.size(); ++s)
      chunks.push_back({static_cast<int>(s), {&tokens[s].back(), 1}});
    Forward(chunks);
    const std::vector<float> logits = Logits(rows);
    const size_t vocabulary_size = static_cast<size_t>(vocabulary());
    for (size_t s = 0; s < prompts.size(); ++s) {
      append(s, std::span(logits).subspan(s * vocabulary_size, vocabulary_size));
    }
  }
  return tokens;
}

}  // namespace mnemo::golden
