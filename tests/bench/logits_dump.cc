// Writes the logits of every position of a text to standard output, for tests/bench/fidelity.py: float32, a
// row of `vocabulary` entries a position. Token ids come on standard input, separated by blanks.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <vector>

#include "devices/device.h"
#include "server/model/model_config.h"
#include "server/model/transformer.h"

namespace {

using namespace mnemo;

struct Options {
  std::string model;
  devices::DeviceOptions device;
  std::string kv_type = "f16";
  int chunk = 256;
};

absl::Status Run(const Options& options, const std::vector<int32_t>& ids) {
  MNEMO_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(options.model));
  MNEMO_ASSIGN_OR_RETURN(const model::ModelConfig config, model::ReadModelConfig(*file));
  MNEMO_ASSIGN_OR_RETURN(const auto sources, model::WeightSources(*file, config));
  MNEMO_ASSIGN_OR_RETURN(const auto device, devices::CreateDevice(options.device));
  MNEMO_ASSIGN_OR_RETURN(const UniqueFd image,
                         devices::BuildWeightImage(device->packer(), sources, options.model));
  MNEMO_ASSIGN_OR_RETURN(const auto weights,
                         devices::WeightImage::Map(image.get(), device->packer().layout()));
  model::TransformerOptions sizes;
  sizes.max_rows = options.chunk;
  sizes.max_logit_rows = options.chunk;
  MNEMO_ASSIGN_OR_RETURN(const auto transformer,
                         model::Transformer::Create(config, *weights, device.get(), sizes));
  const int token_count = static_cast<int>(ids.size());
  const int page_count = (token_count + devices::kPageTokens - 1) / devices::kPageTokens;
  MNEMO_ASSIGN_OR_RETURN(const auto cache, device->CreateKvCache(transformer->KvShape(page_count)));
  std::vector<int32_t> pages(page_count);
  for (int i = 0; i < page_count; ++i) pages[i] = i;
  std::vector<int32_t> rows(options.chunk);
  for (int i = 0; i < options.chunk; ++i) rows[i] = i;
  std::vector<float> host(static_cast<size_t>(options.chunk) * config.vocabulary);
  for (int begin = 0; begin < token_count; begin += options.chunk) {
    const int count = std::min(options.chunk, token_count - begin);
    const model::Transformer::Sequence sequence{count, begin, pages.data()};
    transformer->Forward(cache.get(), std::span(ids).subspan(begin, count), {&sequence, 1});
    const float* logits = transformer->Logits(std::span(rows).first(count));
    const size_t floats = static_cast<size_t>(count) * config.vocabulary;
    device->Copy(host.data(), logits, floats * sizeof(float));
    if (std::fwrite(host.data(), sizeof(float), floats, stdout) != floats)
      return Internal("standard output: write failed");
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
  app.add_option("--kv-type", options.kv_type, "f16 or bf16")->check(CLI::IsMember({"f16", "bf16"}));
  app.add_option("--chunk", options.chunk, "rows of one forward pass")->check(CLI::Range(1, 4096));
  CLI11_PARSE(app, argc, argv);
  options.device.kv_type = options.kv_type == "bf16" ? devices::KvType::kBF16 : devices::KvType::kF16;
  std::vector<int32_t> ids;
  for (int32_t id = 0; std::cin >> id;) ids.push_back(id);
  if (ids.empty()) {
    std::fprintf(stderr, "no ids on standard input\n");
    return 2;
  }
  const absl::Status status = Run(options, ids);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
