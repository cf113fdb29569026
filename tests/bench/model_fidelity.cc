// How true the CPU device is: over real text, every position is predicted by the float32 reference device and
// by the CPU device from the same weights, and the two distributions are compared.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "devices/base/mapping.h"
#include "devices/device.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer.h"
#include "server/model/transformer.h"

namespace mnemo {
namespace {

constexpr int kChunkRows = 32;

class Runner {
 public:
  static absl::StatusOr<std::unique_ptr<Runner>> Create(const model::GgufFile& file,
                                                        const devices::DeviceOptions& options, int window) {
    auto runner = std::make_unique<Runner>();
    MNEMO_ASSIGN_OR_RETURN(model::ModelConfig config, model::ReadModelConfig(file));
    MNEMO_ASSIGN_OR_RETURN(auto sources, model::WeightSources(file, config));
    MNEMO_ASSIGN_OR_RETURN(runner->device_, devices::CreateDevice(options));
    const devices::WeightPacker& packer = runner->device_->packer();
    MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, devices::BuildWeightImage(packer, sources, "fidelity"));
    MNEMO_ASSIGN_OR_RETURN(runner->weights_, devices::WeightImage::Map(fd.get(), packer.layout()));
    MNEMO_ASSIGN_OR_RETURN(runner->transformer_, model::Transformer::Create(
                                                     config, *runner->weights_, runner->device_.get(),
                                                     {.max_rows = kChunkRows, .max_logit_rows = kChunkRows}));
    const int pages = window / devices::kPageTokens + 1;
    MNEMO_ASSIGN_OR_RETURN(runner->cache_,
                           runner->device_->CreateKvCache(runner->transformer_->KvShape(pages)));
    runner->pages_.resize(static_cast<size_t>(pages));
    std::iota(runner->pages_.begin(), runner->pages_.end(), 0);
    return runner;
  }

  // Logits [ids.size(), vocabulary] of rows that stand at `position`.
  const float* Logits(std::span<const int32_t> ids, int position) {
    const int rows = static_cast<int>(ids.size());
    const model::Transformer::Sequence sequence{rows, position, pages_.data()};
    transformer_->Forward(cache_.get(), ids, {&sequence, 1});
    std::vector<int32_t> all(ids.size());
    std::iota(all.begin(), all.end(), 0);
    return transformer_->Logits(all);
  }
  int vocabulary() const { return transformer_->config().vocabulary; }

 private:
  std::unique_ptr<devices::Device> device_;
  std::unique_ptr<devices::WeightImage> weights_;
  std::unique_ptr<devices::KvCache> cache_;
  std::unique_ptr<model::Transformer> transformer_;
  std::vector<int32_t> pages_;
};

std::vector<double> LogSoftmax(const float* logits, int count) {
  const double largest = static_cast<double>(*std::max_element(logits, logits + count));
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  std::vector<double> out(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    out[static_cast<size_t>(i)] = static_cast<double>(logits[i]) - largest - std::log(sum);
  }
  return out;
}

struct Sums {
  int positions = 0;
  int equal_argmax = 0;
  double divergence = 0;     // KL of the device's distribution from the reference's
  double logprob_error = 0;  // of the text's own next token
  double reference_loss = 0;
  double device_loss = 0;
  double widest_miss = 0;  // reference's margin, in logits, at the widest argmax that differs

  void Add(const std::vector<double>& reference, const std::vector<double>& device, size_t next) {
    ++positions;
    const auto wanted = std::max_element(reference.begin(), reference.end()) - reference.begin();
    const auto got = std::max_element(device.begin(), device.end()) - device.begin();
    equal_argmax += wanted == got ? 1 : 0;
    widest_miss =
        std::max(widest_miss, reference[static_cast<size_t>(wanted)] - reference[static_cast<size_t>(got)]);
    for (size_t i = 0; i < reference.size(); ++i) {
      divergence += std::exp(reference[i]) * (reference[i] - device[i]);
    }
    logprob_error += std::fabs(reference[next] - device[next]);
    reference_loss -= reference[next];
    device_loss -= device[next];
  }

  void Print() const {
    const double n = positions;
    std::printf(
        "%d positions: argmax equal %.2f %%, mean |dlogprob| %.4f, KL %.5f, perplexity %.4f for %.4f "
        "(%+.3f %%), widest margin missed %.3f\n",
        positions, 100 * equal_argmax / n, logprob_error / n, divergence / n, std::exp(device_loss / n),
        std::exp(reference_loss / n), 100 * (std::exp((device_loss - reference_loss) / n) - 1), widest_miss);
  }
};

struct Options {
  std::string model;
  std::string text;
  std::string isa = "auto";
  int threads = 2;
  int window = 512;
  int positions = 6000;
};

absl::Status Run(const Options& options) {
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<model::GgufFile> file, model::GgufFile::Open(options.model));
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<model::Tokenizer> tokenizer, model::Tokenizer::FromGguf(*file));
  MNEMO_ASSIGN_OR_RETURN(Mapping text, Mapping::OpenFile(options.text));
  const std::string_view view(reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size());
  std::vector<int32_t> ids = tokenizer->Encode(view, {});
  ids.resize(std::min(ids.size(), static_cast<size_t>(options.positions) + 1));
  MNEMO_ASSIGN_OR_RETURN(
      auto reference,
      Runner::Create(*file, {.kind = "reference", .threads = options.threads}, options.window));
  MNEMO_ASSIGN_OR_RETURN(
      auto device, Runner::Create(*file, {.isa = options.isa, .threads = options.threads}, options.window));
  const int vocabulary = device->vocabulary();
  Sums sums;
  for (size_t at = 0; at + 1 < ids.size();) {
    const int position = static_cast<int>(at) % options.window;
    const size_t rows = std::min({ids.size() - 1 - at, static_cast<size_t>(kChunkRows),
                                  static_cast<size_t>(options.window - position)});
    const std::span<const int32_t> chunk = std::span(ids).subspan(at, rows);
    const float* wanted = reference->Logits(chunk, position);
    const float* got = device->Logits(chunk, position);
    for (size_t i = 0; i < rows; ++i) {
      const size_t row = i * static_cast<size_t>(vocabulary);
      sums.Add(LogSoftmax(wanted + row, vocabulary), LogSoftmax(got + row, vocabulary),
               static_cast<size_t>(ids[at + i + 1]));
    }
    at += rows;
  }
  sums.Print();
  return absl::OkStatus();
}

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) {
  mnemo::Options options;
  CLI::App app{"The CPU device against the float32 reference, teacher-forced over a text"};
  app.add_option("model", options.model, "GGUF file")->required();
  app.add_option("text", options.text, "text file")->required();
  app.add_option("--isa", options.isa, "auto, or an instruction set");
  app.add_option("--threads", options.threads);
  app.add_option("--window", options.window, "tokens that see each other")->check(CLI::Range(32, 65536));
  app.add_option("--positions", options.positions, "how many are compared");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = mnemo::Run(options);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
