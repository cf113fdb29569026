// Speed of the forward pass alone, straight on Transformer: prefill and decode in tokens a second, and bytes
// of weights and cache read a second. This is the device's speed without any server around it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "tests/golden/model_runner.h"

namespace mnemo {
namespace {

struct Options {
  std::string model;
  std::string isa = "auto";
  std::string kv_type = "f16";
  int threads = 2;
  int chunk_rows = 512;
  int repeats = 5;
  std::vector<int> prefill = {512, 4096};
  std::vector<int> decode_at = {128, 2048, 8000};
  std::vector<int> batch = {1, 8};
};

constexpr int kStepsPerRepeat = 16;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class ModelSpeed {
 public:
  static absl::StatusOr<std::unique_ptr<ModelSpeed>> Create(const Options& options) {
    MNEMO_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(options.model));
    const int sequences = *std::max_element(options.batch.begin(), options.batch.end());
    const int prefill = *std::max_element(options.prefill.begin(), options.prefill.end());
    const int decode = *std::max_element(options.decode_at.begin(), options.decode_at.end());
    const int max_rows = std::max({options.chunk_rows, devices::kPageTokens, sequences});
    MNEMO_ASSIGN_OR_RETURN(
        auto runner, golden::ModelRunner::Create(
                         *file,
                         {.isa = options.isa,
                          .threads = options.threads,
                          .kv_type = devices::KvTypeOfName(options.kv_type).value_or(devices::KvType::kF16)},
                         {.max_rows = max_rows, .max_logit_rows = sequences, .max_sequences = sequences},
                         sequences, std::max(prefill, decode + options.repeats * kStepsPerRepeat)));
    return std::unique_ptr<ModelSpeed>(new ModelSpeed(options, std::move(runner)));
  }

  void Run() {
    const devices::DeviceInfo& info = runner_->device().info();
    std::printf("%s, %d threads, %s\n", info.numerics_id.c_str(), info.threads, options_.model.c_str());
    for (int tokens : options_.prefill) Prefill(tokens);
    FillCache();
    for (int at : options_.decode_at) {
      for (int batch : options_.batch) Decode(at, batch);
    }
  }

 private:
  ModelSpeed(const Options& options, std::unique_ptr<golden::ModelRunner> runner)
      : options_(options), runner_(std::move(runner)) {}

  // Writes every page of the cache, so that its memory is resident and decoding reads it.
  void FillCache() {
    std::vector<int32_t> ids(devices::kPageTokens);
    std::iota(ids.begin(), ids.end(), 1000);
    for (int32_t page = 0; page < runner_->cache().shape().pages; ++page) {
      const model::Transformer::Sequence sequence{devices::kPageTokens, 0, &page};
      runner_->transformer().Forward(&runner_->cache(), ids, {&sequence, 1});
    }
  }

  void Prefill(int tokens) {
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(1000 + i * 37 % 20000);
    double best = 1e30;
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      runner_->Restart(0);
      const double begin = Seconds();
      for (std::span<const int32_t> rest = ids; !rest.empty();) {
        const golden::ModelRunner::Chunk chunk{
            0, rest.first(std::min(rest.size(), static_cast<size_t>(options_.chunk_rows)))};
        runner_->Forward({&chunk, 1});
        rest = rest.subspan(chunk.ids.size());
      }
      const int32_t last = (tokens - 1) % options_.chunk_rows;
      runner_->transformer().Logits({&last, 1});
      best = std::min(best, Seconds() - begin);
    }
    std::printf("prefill %6d tokens             %9.1f tokens/s\n", tokens, tokens / best);
  }

  void Decode(int at, int batch) {
    std::vector<int32_t> ids(static_cast<size_t>(batch), 1000), rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    const devices::SamplingParams greedy{.temperature = 0};
    std::vector<devices::SampleRow> samples(ids.size());
    std::vector<devices::SampleResult> results(ids.size());
    std::vector<golden::ModelRunner::Chunk> chunks;
    for (int i = 0; i < batch; ++i) {
      runner_->Restart(i, at);
      chunks.push_back({i, {&ids[static_cast<size_t>(i)], 1}});
    }
    const int vocabulary = runner_->vocabulary();
    double best = 1e30;
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      const double begin = Seconds();
      for (int step = 0; step < kStepsPerRepeat; ++step) {
        runner_->Forward(chunks);
        const float* logits = runner_->transformer().Logits(rows);
        for (size_t i = 0; i < ids.size(); ++i) {
          samples[i].logits = logits + i * static_cast<size_t>(vocabulary);
          samples[i].params = &greedy;
        }
        runner_->device().Sample(samples, vocabulary, results);
        for (size_t i = 0; i < ids.size(); ++i) ids[i] = results[i].id;
      }
      best = std::min(best, (Seconds() - begin) / kStepsPerRepeat);
    }
    const double cache_bytes = static_cast<double>(batch) * at / devices::kPageTokens *
                               static_cast<double>(devices::KvPageBytes(runner_->cache().shape()));
    std::printf("decode at %6d tokens, batch %2d %9.1f tokens/s  %.2f ms a step, %.1f GB/s\n", at, batch,
                batch / best, best * 1e3,
                (static_cast<double>(runner_->weights().bytes()) + cache_bytes) / best / 1e9);
  }

  const Options options_;
  std::unique_ptr<golden::ModelRunner> runner_;
};

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) {
  mnemo::Options options;
  CLI::App app{"Speed of the forward pass on the CPU device"};
  app.add_option("model", options.model, "GGUF file")->required();
  app.add_option("--isa", options.isa, "auto, or an instruction set");
  app.add_option("--kv-type", options.kv_type, "f16, bf16 or q8")
      ->check(CLI::IsMember({"f16", "bf16", "q8"}));
  app.add_option("--threads", options.threads);
  app.add_option("--chunk-rows", options.chunk_rows, "rows of one forward pass of a prefill");
  app.add_option("--repeats", options.repeats, "the best of so many counts");
  app.add_option("--prefill", options.prefill, "prompt lengths")->delimiter(',');
  app.add_option("--decode-at", options.decode_at, "context lengths")->delimiter(',');
  app.add_option("--batch", options.batch, "sequences decoded together")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  auto speed = mnemo::ModelSpeed::Create(options);
  if (!speed.ok()) {
    std::fprintf(stderr, "%s\n", std::string(speed.status().message()).c_str());
    return 1;
  }
  (*speed)->Run();
  return 0;
}
