// Speed of attention alone: rows that attend to a list of positions spread over a long context, against rows
// that attend to as many positions in sequence. Each repetition goes on to another layer and to other
// positions, so that both read memory and not a cache.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "devices/device.h"

namespace mnemo {
namespace {

using namespace devices;  // NOLINT: all of it is about devices

struct Options {
  std::string isa = "auto";
  std::string kv_type = "f16";
  int threads = 2;
  int heads = 9;
  int kv_heads = 3;
  int head_dim = 64;
  int layers = 30;
  int tokens = 8192;
  std::vector<int> budget = {256, 1024, 2048};
  std::vector<int> entry_tokens = {1, 16, 64};
  std::vector<int> batch = {1};
  int repeats = 50;
  bool rows = true;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class AttentionSpeed {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionSpeed>> Create(const Options& options) {
    auto speed = std::unique_ptr<AttentionSpeed>(new AttentionSpeed(options));
    MNEMO_ASSIGN_OR_RETURN(speed->device_,
                           CreateDevice({.isa = options.isa,
                                         .threads = options.threads,
                                         .kv_type = KvTypeOfName(options.kv_type).value_or(KvType::kF16)}));
    KvCacheShape shape{.layers = options.layers,
                       .kv_heads = options.kv_heads,
                       .head_dim = options.head_dim,
                       .pages = options.tokens / kPageTokens,
                       .type = speed->device_->info().kv_type};
    if (options.rows) shape.gather_layers.assign(static_cast<size_t>(options.layers), 1);
    MNEMO_ASSIGN_OR_RETURN(speed->cache_, speed->device_->CreateKvCache(shape));
    const int row = options.heads * options.head_dim;
    const int rows = std::max(kPageTokens, *std::max_element(options.batch.begin(), options.batch.end()));
    MNEMO_RETURN_IF_ERROR(speed->device_->Reserve(rows, row, options.heads));
    const size_t bytes = static_cast<size_t>(rows) * static_cast<size_t>(row) * sizeof(float);
    for (auto* buffer : {&speed->q_, &speed->k_, &speed->out_, &speed->cos_sin_}) {
      MNEMO_ASSIGN_OR_RETURN(*buffer, speed->device_->Allocate(bytes));
    }
    speed->Fill();
    return speed;
  }

  void Run() {
    std::printf("%s, %d threads, %d layers, %d heads of %d, %d KV heads, %d tokens; us an operation\n",
                device_->info().numerics_id.c_str(), options_.threads, options_.layers, options_.heads,
                options_.head_dim, options_.kv_heads, options_.tokens);
    for (int batch : options_.batch) {
      double all = 1e30;
      for (int i = 0; i < options_.repeats; ++i) all = std::min(all, Pass(batch, options_.tokens, nullptr));
      std::printf("batch %2d, all %d positions: %.1f\n", batch, options_.tokens, Micros(all));
      for (int budget : options_.budget) {
        for (int entry_tokens : options_.entry_tokens) Compare(batch, budget, entry_tokens);
      }
    }
  }

 private:
  explicit AttentionSpeed(const Options& options) : options_(options) {
    pages_.resize(static_cast<size_t>(options.tokens / kPageTokens));
    std::iota(pages_.begin(), pages_.end(), 0);
    std::shuffle(pages_.begin(), pages_.end(), random_);
  }

  float* At(const std::unique_ptr<DeviceBuffer>& buffer) { return static_cast<float*>(buffer->data()); }

  void Fill() {
    std::normal_distribution<float> normal;
    for (auto* buffer : {&q_, &k_}) {
      for (size_t i = 0; i < (*buffer)->bytes() / sizeof(float); ++i) At(*buffer)[i] = normal(random_);
    }
    for (int layer = 0; layer < options_.layers; ++layer) {
      for (int page = 0; page < options_.tokens / kPageTokens; ++page) {
        std::vector<int64_t> slots(kPageTokens);
        std::iota(slots.begin(), slots.end(), int64_t{page} * kPageTokens);
        RotaryStoreOp op;
        op.q = At(out_);
        op.k = At(k_);
        op.v = At(q_);
        op.rows = kPageTokens;
        op.heads = op.kv_heads = options_.kv_heads;
        op.head_dim = options_.head_dim;
        op.rotary_dims = 2;
        op.cos_sin = At(cos_sin_);
        op.cache = cache_.get();
        op.layer = layer;
        op.slots = slots.data();
        for (int i = 0; i < kPageTokens; ++i) At(cos_sin_)[2 * i] = 1.0f;
        const Op list = op;
        device_->Run({&list, 1});
      }
    }
  }

  // A list with the first 4 and the last 64 positions, the rest of the budget anywhere between.
  struct Selection {
    std::vector<std::vector<uint32_t>> ids;
    std::vector<TokenSelection> heads;
    SparseSelection sparse;
  };
  Selection Draw(int budget, int entry_tokens) {
    Selection selection;
    const int first_end = entry_tokens == 1 ? 4 : entry_tokens;
    const int tail_begin = options_.tokens - 64;
    const int count = std::max(0, budget - first_end - 64) / entry_tokens;
    for (int head = 0; head < options_.kv_heads; ++head) {
      std::vector<uint32_t> ids(static_cast<size_t>(tail_begin / entry_tokens - first_end / entry_tokens));
      std::iota(ids.begin(), ids.end(), static_cast<uint32_t>(first_end / entry_tokens));
      std::shuffle(ids.begin(), ids.end(), random_);
      ids.resize(std::min(ids.size(), static_cast<size_t>(count)));
      std::sort(ids.begin(), ids.end());
      selection.ids.push_back(std::move(ids));
    }
    for (const auto& ids : selection.ids) {
      selection.heads.push_back({ids.data(), static_cast<uint32_t>(ids.size())});
    }
    selection.sparse = {first_end, tail_begin, entry_tokens, selection.heads.data(), count};
    return selection;
  }

  // Seconds of one pass over all layers, with selections or over `tokens` positions in sequence.
  double Pass(int batch, int tokens, const std::vector<Selection>* selections) {
    std::vector<std::vector<AttentionSequence>> sequences(static_cast<size_t>(options_.layers));
    std::vector<Op> ops;
    for (int layer = 0; layer < options_.layers; ++layer) {
      auto& of_layer = sequences[static_cast<size_t>(layer)];
      for (int i = 0; i < batch; ++i, ++turn_) {
        if (selections != nullptr) {
          const Selection& selection = (*selections)[static_cast<size_t>(turn_) % selections->size()];
          of_layer.push_back({i, 1, options_.tokens - 1, pages_.data(), &selection.sparse});
        } else {
          const int begin = turn_ * 5 % (options_.tokens / tokens) * (tokens / kPageTokens);
          of_layer.push_back({i, 1, tokens - 1, pages_.data() + begin, nullptr});
        }
      }
      ops.push_back(AttentionOp{At(q_), At(out_), cache_.get(), layer, options_.heads, options_.kv_heads,
                                options_.head_dim, 0.125f, 0, of_layer});
    }
    const double begin = Seconds();
    device_->Run(ops);
    return Seconds() - begin;
  }

  // The least time of all repetitions, which take turns so that both see the same disturbances.
  void Compare(int batch, int budget, int entry_tokens) {
    std::vector<Selection> selections;
    for (int i = 0; i < 32; ++i) selections.push_back(Draw(budget, entry_tokens));
    double in_sequence = 1e30, listed = 1e30;
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      in_sequence = std::min(in_sequence, Pass(batch, budget, nullptr));
      listed = std::min(listed, Pass(batch, budget, &selections));
    }
    std::printf("batch %2d, %4d positions: in sequence %7.1f, listed in entries of %2d %7.1f, ratio %.2f\n",
                batch, budget, Micros(in_sequence), entry_tokens, Micros(listed), listed / in_sequence);
  }

  double Micros(double pass) const { return pass * 1e6 / options_.layers; }

  const Options options_;
  std::mt19937 random_;
  int turn_ = 0;
  std::vector<int32_t> pages_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<DeviceBuffer> q_, k_, out_, cos_sin_;
};

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) {
  mnemo::Options options;
  CLI::App app{"Speed of attention on the CPU device"};
  app.add_option("--isa", options.isa, "auto, or an instruction set");
  app.add_option("--kv-type", options.kv_type, "f16, bf16 or q8")
      ->check(CLI::IsMember({"f16", "bf16", "q8"}));
  app.add_option("--threads", options.threads);
  app.add_option("--heads", options.heads);
  app.add_option("--kv-heads", options.kv_heads);
  app.add_option("--head-dim", options.head_dim);
  app.add_option("--layers", options.layers);
  app.add_option("--tokens", options.tokens, "context length, a multiple of 64");
  app.add_option("--budget", options.budget, "positions attended to")->delimiter(',');
  app.add_option("--entry-tokens", options.entry_tokens)->delimiter(',');
  app.add_option("--batch", options.batch)->delimiter(',');
  app.add_option("--repeats", options.repeats, "the best of so many counts");
  app.add_flag("!--no-rows", options.rows, "a cache without the second form of keys");
  CLI11_PARSE(app, argc, argv);
  auto speed = mnemo::AttentionSpeed::Create(options);
  if (!speed.ok()) {
    std::fprintf(stderr, "%s\n", std::string(speed.status().message()).c_str());
    return 1;
  }
  (*speed)->Run();
  return 0;
}
