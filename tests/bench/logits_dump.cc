// Writes the logits of every position of a text to standard output, for tests/bench/fidelity.py: float32, a
// row of `vocabulary` entries a position. Token ids come on standard input, separated by blanks.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
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
};

absl::Status Run(const Options& options, const std::vector<int32_t>& ids) {
  MNEMO_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(options.model));
  const int token_count = static_cast<int>(ids.size());
  MNEMO_ASSIGN_OR_RETURN(const auto runner,
                         testing::ModelRunner::Create(
                             *file, options.device,
                             {.max_rows = options.chunk, .max_logit_rows = options.chunk}, 1, token_count));
  std::vector<int32_t> rows(options.chunk);
  std::iota(rows.begin(), rows.end(), 0);
  for (int begin = 0; begin < token_count; begin += options.chunk) {
    const int count = std::min(options.chunk, token_count - begin);
    const testing::ModelRunner::Chunk chunk{0, std::span(ids).subspan(begin, count)};
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
