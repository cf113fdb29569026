// Speed of the forward pass alone, straight on Transformer: prefill and decode in tokens a second, and bytes
// of weights and cache read a second. Shows what the device gives before any server stands around it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "devices/device.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/transformer.h"

namespace mnemo {
namespace {

struct Options {
  std::string model;
  std::string isa = "auto";
  int threads = 2;
  int chunk_rows = 512;
  int repeats = 5;
  std::vector<int> prefill = {512, 4096};
  std::vector<int> decode_at = {128, 2048, 8000};
  std::vector<int> batch = {1, 8};
};

class ModelSpeed {
 public:
  static absl::StatusOr<std::unique_ptr<ModelSpeed>> Create(const Options& options) {
    auto speed = std::make_unique<ModelSpeed>();
    speed->options_ = options;
    MNEMO_ASSIGN_OR_RETURN(speed->file_, model::GgufFile::Open(options.model));
    MNEMO_ASSIGN_OR_RETURN(model::ModelConfig config, model::ReadModelConfig(*speed->file_));
    MNEMO_ASSIGN_OR_RETURN(auto sources, model::WeightSources(*speed->file_, config));
    MNEMO_ASSIGN_OR_RETURN(speed->device_,
                           devices::CreateDevice({.isa = options.isa, .threads = options.threads}));
    MNEMO_ASSIGN_OR_RETURN(UniqueFd fd,
                           devices::BuildWeightImage(speed->device_->packer(), sources, "bench"));
    MNEMO_ASSIGN_OR_RETURN(speed->weights_,
                           devices::WeightImage::Map(fd.get(), speed->device_->packer().layout()));
    MNEMO_ASSIGN_OR_RETURN(
        speed->transformer_,
        model::Transformer::Create(config, *speed->weights_, speed->device_.get(),
                                   {.max_rows = std::max(options.chunk_rows, devices::kPageTokens)}));
    int positions = *std::max_element(options.prefill.begin(), options.prefill.end());
    for (int at : options.decode_at) {
      for (int batch : options.batch) {
        positions = std::max(positions, batch * (at + options.repeats * kStepsPerRepeat + 64));
      }
    }
    const int pages = positions / devices::kPageTokens + 64;
    MNEMO_ASSIGN_OR_RETURN(speed->cache_, speed->device_->CreateKvCache(speed->transformer_->KvShape(pages)));
    speed->pages_.resize(static_cast<size_t>(pages));
    std::iota(speed->pages_.begin(), speed->pages_.end(), 0);
    return speed;
  }

  // Writes every page of the cache, so that the memory is there and decoding reads it.
  void FillCache() {
    std::vector<int32_t> ids(devices::kPageTokens);
    std::iota(ids.begin(), ids.end(), 1000);
    for (const int32_t& page : pages_) {
      const model::Transformer::Sequence sequence{devices::kPageTokens, 0, &page};
      transformer_->Forward(cache_.get(), ids, {&sequence, 1});
    }
  }

  void Run() {
    const devices::DeviceInfo& info = device_->info();
    std::printf("%s, %d threads, %s\n", info.numerics_id.c_str(), info.threads, options_.model.c_str());
    for (int tokens : options_.prefill) Prefill(tokens);
    FillCache();
    for (int at : options_.decode_at) {
      for (int batch : options_.batch) Decode(at, batch);
    }
  }

 private:
  static constexpr int kStepsPerRepeat = 16;

  static double Seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  void Prefill(int tokens) {
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(1000 + i * 37 % 20000);
    double best = 1e30;
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      const double begin = Seconds();
      for (int at = 0; at < tokens; at += options_.chunk_rows) {
        const int rows = std::min(options_.chunk_rows, tokens - at);
        const model::Transformer::Sequence sequence{rows, at, pages_.data()};
        transformer_->Forward(cache_.get(),
                              std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(rows)),
                              {&sequence, 1});
      }
      const int32_t last = (tokens - 1) % options_.chunk_rows;
      transformer_->Logits({&last, 1});
      best = std::min(best, Seconds() - begin);
    }
    std::printf("prefill %6d tokens             %9.1f tokens/s\n", tokens, tokens / best);
  }

  void Decode(int at, int batch) {
    std::vector<int32_t> ids(static_cast<size_t>(batch), 1000), rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    const int stride = static_cast<int>(pages_.size()) / batch;
    const devices::SamplingParams greedy{.temperature = 0};
    std::vector<devices::SampleRow> samples(ids.size());
    std::vector<devices::SampleResult> results(ids.size());
    std::vector<model::Transformer::Sequence> sequences(ids.size());
    const int vocabulary = transformer_->config().vocabulary;
    double best = 1e30;
    int position = at;
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      const double begin = Seconds();
      for (int step = 0; step < kStepsPerRepeat; ++step, ++position) {
        for (size_t i = 0; i < ids.size(); ++i) {
          sequences[i] = {1, position, pages_.data() + i * static_cast<size_t>(stride)};
        }
        transformer_->Forward(cache_.get(), ids, sequences);
        const float* logits = transformer_->Logits(rows);
        for (size_t i = 0; i < ids.size(); ++i) {
          samples[i].logits = logits + i * static_cast<size_t>(vocabulary);
          samples[i].params = &greedy;
        }
        device_->Sample(samples, vocabulary, results);
        for (size_t i = 0; i < ids.size(); ++i) ids[i] = results[i].id;
      }
      best = std::min(best, (Seconds() - begin) / kStepsPerRepeat);
    }
    const double cache_bytes = static_cast<double>(batch) * at / devices::kPageTokens *
                               static_cast<double>(devices::KvPageBytes(cache_->shape()));
    std::printf("decode at %6d tokens, batch %2d %9.1f tokens/s  %.2f ms a step, %.1f GB/s\n", at, batch,
                batch / best, best * 1e3,
                (static_cast<double>(weights_->bytes()) + cache_bytes) / best / 1e9);
  }

  Options options_;
  std::unique_ptr<model::GgufFile> file_;
  std::unique_ptr<devices::Device> device_;
  std::unique_ptr<devices::WeightImage> weights_;
  std::unique_ptr<devices::KvCache> cache_;
  std::unique_ptr<model::Transformer> transformer_;
  std::vector<int32_t> pages_;
};

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) {
  mnemo::Options options;
  CLI::App app{"Speed of the forward pass on the CPU device"};
  app.add_option("model", options.model, "GGUF file")->required();
  app.add_option("--isa", options.isa, "auto, or an instruction set");
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
