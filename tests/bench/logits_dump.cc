// Writes the logits of every position of a text to standard output, for tests/bench/fidelity.py: float32, a
// row of `vocabulary` entries a position. Token ids come on standard input, separated by blanks.
//
// With --attention FOLDER it writes the operands of attention instead, for tests/bench/relevancy.py. Each
// full-attention layer N has two files, after rotary embedding. keys.N: the whole pages before the last
// --last positions as the cache stores them, float32 [kv_heads][tokens][head_dim]. queries.N: every
// --every-th of these last positions, float32 [queries][kv_heads][group][head_dim]. Standard output then has
// one line of JSON with these figures.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <vector>

#include "tests/golden/model_runner.h"

namespace {

using namespace mnemo;

struct Options {
  std::string model;
  devices::DeviceOptions device;
  std::string kv_type = "f16";
  int chunk = 256;
  std::string attention;  // folder
  int last = 1024;
  int every = 16;
};

// Copies the query of each layer's row while a Forward of one row runs.
class QueryRecorder : public model::LayerMemory {
 public:
  QueryRecorder(size_t layers, size_t row_floats) : layers_(layers), row_floats_(row_floats) {
    for (Layer& layer : layers_) layer.row_floats = row_floats_;
  }
  Ops OpsOf(int slot, const float* q) override {
    Layer& layer = layers_[static_cast<size_t>(slot)];
    layer.q = q;
    Ops ops;
    ops.select[0] = {1, [](void* context, int, int) { static_cast<Layer*>(context)->Append(); }, &layer};
    return ops;
  }
  const std::vector<float>& queries(size_t slot) const { return layers_[slot].queries; }

 private:
  struct Layer {
    const float* q = nullptr;
    size_t row_floats = 0;
    std::vector<float> queries;

    void Append() { queries.insert(queries.end(), q, q + row_floats); }
  };
  std::vector<Layer> layers_;
  size_t row_floats_;
};

absl::Status Write(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  return file.good() ? absl::OkStatus() : Internal("{}: write failed", path);
}

absl::Status DumpAttention(const Options& options, const std::vector<int32_t>& ids) {
  MNEMO_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(options.model));
  MNEMO_ASSIGN_OR_RETURN(const model::ModelConfig config, model::ReadModelConfig(*file));
  std::vector<int> layers;
  for (int layer = 0; layer < config.layers; ++layer) {
    if (!config.layer_is_windowed[static_cast<size_t>(layer)]) layers.push_back(layer);
  }
  const int tokens = static_cast<int>(ids.size());
  MNEMO_ASSIGN_OR_RETURN(
      const auto runner,
      golden::ModelRunner::Create(*file, options.device,
                                  {.max_rows = options.chunk, .indexed_layers = layers}, 1, tokens));
  QueryRecorder recorder(layers.size(), static_cast<size_t>(config.heads * config.head_dim));
  int queries = 0;
  const int first_query = std::max(tokens - options.last, 0);
  const int pages = first_query / devices::kPageTokens;
  for (int begin = 0; begin < tokens;) {
    const bool alone = begin >= first_query;
    const bool asked = alone && (begin - first_query) % options.every == 0;
    const int count = alone ? 1 : std::min(options.chunk, first_query - begin);
    const golden::ModelRunner::Chunk chunk{0, std::span(ids).subspan(begin, count)};
    runner->Forward({&chunk, 1}, asked ? &recorder : nullptr);
    queries += asked ? 1 : 0;
    begin += count;
  }
  const auto page_floats = static_cast<size_t>(devices::kPageTokens * config.head_dim);
  for (size_t slot = 0; slot < layers.size(); ++slot) {
    std::vector<float> keys;
    std::vector<float> page_keys(page_floats);
    for (int head = 0; head < config.kv_heads; ++head) {
      for (int page = 0; page < pages; ++page) {
        runner->cache().ReadKeys(layers[slot], head, runner->PageOf(0, page), page_keys.data());
        keys.insert(keys.end(), page_keys.begin(), page_keys.end());
      }
    }
    const std::string suffix = "." + std::to_string(layers[slot]);
    MNEMO_RETURN_IF_ERROR(Write(options.attention + "/keys" + suffix, keys));
    MNEMO_RETURN_IF_ERROR(Write(options.attention + "/queries" + suffix, recorder.queries(slot)));
  }
  std::printf("{\"layers\": [");
  for (size_t slot = 0; slot < layers.size(); ++slot)
    std::printf("%s%d", slot == 0 ? "" : ", ", layers[slot]);
  std::printf("], \"tokens\": %d, \"queries\": %d, \"kv_heads\": %d, \"group\": %d, \"head_dim\": %d}\n",
              pages * devices::kPageTokens, queries, config.kv_heads, config.heads / config.kv_heads,
              config.head_dim);
  return absl::OkStatus();
}

absl::Status Run(const Options& options, const std::vector<int32_t>& ids) {
  MNEMO_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(options.model));
  const int token_count = static_cast<int>(ids.size());
  MNEMO_ASSIGN_OR_RETURN(const auto runner,
                         golden::ModelRunner::Create(
                             *file, options.device,
                             {.max_rows = options.chunk, .max_logit_rows = options.chunk}, 1, token_count));
  std::vector<int32_t> rows(options.chunk);
  std::iota(rows.begin(), rows.end(), 0);
  for (int begin = 0; begin < token_count; begin += options.chunk) {
    const int count = std::min(options.chunk, token_count - begin);
    const golden::ModelRunner::Chunk chunk{0, std::span(ids).subspan(begin, count)};
    runner->Forward({&chunk, 1});
    const std::vector<float> logits = runner->Logits(std::span(rows).first(count));
    if (std::fwrite(logits.data(), sizeof(float), logits.size(), stdout) != logits.size()) {
      return Internal("standard output: write failed");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Writes logits of every position of the ids on standard input"};
  app.add_option("--model", options.model, "GGUF file")->required();
  app.add_option("--device", options.device.kind, "cpu or reference");
  app.add_option("--isa", options.device.isa, "as in the configuration's cpu.isa");
  app.add_option("--threads", options.device.threads, "threads")->check(CLI::Range(1, 256));
  app.add_option("--kv-type", options.kv_type, "f16, bf16 or q8")
      ->check(CLI::IsMember({"f16", "bf16", "q8"}));
  app.add_option("--chunk", options.chunk, "rows of one forward pass")->check(CLI::Range(1, 4096));
  app.add_option("--attention", options.attention, "folder for keys and queries, instead of logits")
      ->check(CLI::ExistingDirectory);
  app.add_option("--last", options.last, "positions that are decoded, for --attention")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--every", options.every, "of these every so many gives a query")
      ->check(CLI::Range(1, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  options.device.kv_type = devices::KvTypeOfName(options.kv_type).value_or(devices::KvType::kF16);
  std::vector<int32_t> ids;
  for (int32_t id = 0; std::cin >> id;) ids.push_back(id);
  if (ids.empty()) {
    std::fprintf(stderr, "no ids on standard input\n");
    return 2;
  }
  const absl::Status status = options.attention.empty() ? Run(options, ids) : DumpAttention(options, ids);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
