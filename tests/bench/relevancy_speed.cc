// Speed of relevancy and top-k alone, straight on the memory device. Makes one index a format, then answers
// each line of standard input with one line of JSON. relevancy.py drives it beside other programs.
//
//   time FORMAT K REPEATS   least and median microseconds of a query operation, and its bytes
//   pair FORMAT K K1 REPEATS  the same of one stage and of a cascade whose first stage keeps K1, in turns
//   step FORMAT K REPEATS   the same of a step of decoding: a query of every sequence, layer by layer
//   ids FORMAT K FILE       ids of every query's selection, u32 [queries][heads][K], to FILE
//   bandwidth               bytes a second that the threads read from memory together
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/mapping.h"
#include "devices/memory/codes.h"
#include "devices/memory/index_table.h"
#include "devices/memory/memory_device.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo {
namespace {

using layout::Descriptor;
using layout::kPageTokens;

struct Options {
  std::string keys;     // float32 [heads][tokens][dim]; empty: Gaussian ones
  std::string queries;  // float32 [queries][heads][group][dim]
  std::string isa = "auto";
  uint32_t tokens = 8192;
  uint32_t dim = 64;
  uint32_t heads = 3;
  uint32_t group = 3;
  uint32_t layers = 1;
  uint32_t sequences = 1;
  int threads = 1;
  std::vector<std::string> formats = {"codes2", "codes4", "codes8"};
};

uint32_t FormatOf(const std::string& name) {
  constexpr const char* kNames[] = {"codes2", "codes4", "codes8", "bounds", "means"};
  for (uint32_t n = 0; n < 5; ++n) {
    if (name == kNames[n]) return layout::kFormatCodes2 + n;
  }
  return 0;
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Relevancy {
 public:
  explicit Relevancy(Options options) : options_(std::move(options)) {}

  absl::Status Prepare() {
    MNEMO_RETURN_IF_ERROR(ReadFloats(options_.keys, size_t{options_.heads} * options_.tokens, &keys_));
    MNEMO_RETURN_IF_ERROR(ReadFloats(options_.queries, size_t{options_.heads} * options_.group, &queries_));
    MNEMO_ASSIGN_OR_RETURN(device_, memory_device::MakeMemoryDevice({.threads = options_.threads,
                                                                     .isa = options_.isa,
                                                                     .max_tokens = options_.tokens,
                                                                     .max_heads = options_.heads}));
    MNEMO_ASSIGN_OR_RETURN(table_,
                           memory_device::IndexTable::Create({.isa = options_.isa}, &device_->memory()));
    MNEMO_ASSIGN_OR_RETURN(owner_, table_->AddOwner({.quota_bytes = uint64_t{1} << 40,
                                                     .max_indexes = IndexOf(0, options_.sequences)}));
    for (const std::string& name : options_.formats) {
      for (uint32_t sequence = 0; sequence < options_.sequences; ++sequence) {
        MNEMO_RETURN_IF_ERROR(MakeIndex(FormatOf(name), sequence));
      }
    }
    return absl::OkStatus();
  }

  void Obey(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    std::string format;
    uint32_t k = 0;
    words >> command;
    if (command == "bandwidth") {
      std::printf("{\"bytes_per_second\": %.4g}\n", Bandwidth());
    } else if (command == "time" && words >> format >> k) {
      int repeats = 1;
      words >> repeats;
      Time(FormatOf(format), k, repeats);
    } else if (command == "step" && words >> format >> k) {
      int repeats = 1;
      words >> repeats;
      Step(FormatOf(format), k, repeats);
    } else if (command == "pair" && words >> format >> k) {
      uint32_t k1 = 0;
      int repeats = 1;
      words >> k1 >> repeats;
      Pair(FormatOf(format), k, k1, repeats);
    } else if (command == "ids" && words >> format >> k) {
      std::string file;
      words >> file;
      WriteIds(FormatOf(format), k, file);
    } else {
      std::printf("{\"error\": \"unknown line\"}\n");
    }
    std::fflush(stdout);
  }

 private:
  // Whole rows of dim floats from a file, or `rows` Gaussian ones.
  absl::Status ReadFloats(const std::string& path, size_t rows, std::vector<float>* to) const {
    if (path.empty()) {
      std::mt19937 random(7);
      std::normal_distribution<float> bell;
      to->resize(rows * options_.dim);
      for (float& value : *to) value = bell(random);
      return absl::OkStatus();
    }
    MNEMO_ASSIGN_OR_RETURN(const Mapping file, Mapping::OpenFile(path));
    to->resize(file.bytes().size() / sizeof(float));
    std::memcpy(to->data(), file.bytes().data(), to->size() * sizeof(float));
    if (to->size() % (rows * options_.dim) != 0 && to != &keys_) {
      return InvalidArgument("{}: {} floats, not a multiple of {}", path, to->size(), rows * options_.dim);
    }
    return absl::OkStatus();
  }

  static uint32_t IndexOf(uint32_t format, uint32_t sequence) { return sequence * 8 + format; }

  // All layers have the same keys.
  absl::Status MakeIndex(uint32_t format, uint32_t sequence) {
    if (format == 0) return InvalidArgument("--formats: codes2, codes4, codes8, bounds, means");
    Descriptor d{};
    d.op = layout::kOpCreate;
    d.index_id = IndexOf(format, sequence);
    layout::IndexSpec spec{};
    spec.max_tokens = options_.tokens;
    spec.layer_slots = static_cast<uint16_t>(options_.layers);
    spec.heads = static_cast<uint16_t>(options_.heads);
    spec.dim = static_cast<uint16_t>(options_.dim);
    spec.record_format = static_cast<uint8_t>(format);
    table_->Create(owner_, d, spec);
    d.op = layout::kOpAppend;
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = static_cast<uint8_t>(options_.heads);
    d.format = layout::kFormatF32;
    d.end = options_.tokens;
    memory_device::AppendJob job;
    const memory_device::PageKeySource source{
        [](void* context, uint32_t page, uint32_t /*slot*/, uint32_t head, float* /*scratch*/) {
          const auto& self = *static_cast<const Relevancy*>(context);
          const size_t row = size_t{head} * self.options_.tokens + size_t{page} * kPageTokens;
          return layout::PageKeys{self.keys_.data() + row * self.options_.dim, self.options_.dim * 4UL,
                                  layout::kFormatF32};
        },
        this};
    table_->BeginAppend(owner_, d, source, &job);
    const uint32_t records = job.items();
    for (uint32_t item = 0; item < records; ++item) job.RunItem(item, 0);
    const layout::Completion done = table_->EndAppend(&job);
    std::fprintf(stderr, "format %u: %u records, %.2f us each\n", format, records,
                 done.prepare_ns * 1e-3 / records);
    return absl::OkStatus();
  }

  Descriptor Query(uint32_t format, uint32_t k) const {
    Descriptor d{};
    d.op = layout::kOpScoreSelect;
    d.index_id = format;
    d.format = static_cast<uint8_t>(format);
    d.heads = static_cast<uint8_t>(options_.heads);
    d.queries = 1;
    d.group = static_cast<uint8_t>(options_.group);
    d.score_op = format == layout::kFormatBounds  ? layout::kScorePageBound
                 : format == layout::kFormatMeans ? layout::kScoreBlockMean
                                                  : layout::kScoreDot;
    d.group_op = layout::kGroupMax;
    d.select_op = layout::kSelectTopK;
    d.end = options_.tokens;
    d.k = k;
    return d;
  }

  void MakeQuery(const Descriptor& d, size_t query) {
    payload_.resize(options_.heads * layout::QueryBlockBytes(options_.group, options_.dim));
    const size_t block = payload_.size() / options_.heads;
    const size_t floats = size_t{options_.group} * options_.dim;
    for (uint32_t h = 0; h < options_.heads; ++h) {
      memory_device::MakeQueryBlockFast(
          std::span(queries_).subspan((query * options_.heads + h) * floats, floats), options_.group,
          options_.dim, d.format, 1 / std::sqrt(static_cast<float>(options_.dim)), {},
          std::span(payload_).subspan(h * block, block));
    }
  }

  size_t ResultBytes(const Descriptor& d) const {
    return options_.heads * layout::ResultBlockBytes(d.select_op, d.flags, d.k, options_.dim);
  }

  layout::Completion Run(const Descriptor& d, size_t query) {
    MakeQuery(d, query);
    result_.resize(ResultBytes(d));
    const memory_device::Operation operation{d, owner_, payload_.data(), result_.data()};
    layout::Completion done;
    device_->Submit({&operation, 1});
    device_->Poll({&done, 1});
    return done;
  }

  size_t QueryCount() const {
    return queries_.size() / (size_t{options_.heads} * options_.group * options_.dim);
  }

  // Times of `repeats` runs of a query operation; two more before them are not counted.
  struct Timing {
    std::vector<double> seconds;
    double score_us = 0;
    double select_us = 0;
    uint64_t bytes = 0;

    std::string Text() {
      std::sort(seconds.begin(), seconds.end());
      const auto runs = static_cast<double>(seconds.size());
      char text[160];
      std::snprintf(text, sizeof(text),
                    "{\"least_us\": %.2f, \"median_us\": %.2f, \"score_us\": %.2f, \"select_us\": %.2f, "
                    "\"bytes\": %llu}",
                    seconds.front() * 1e6, seconds[seconds.size() / 2] * 1e6, score_us / runs,
                    select_us / runs, static_cast<unsigned long long>(bytes));
      return text;
    }
  };

  void Measure(const Descriptor& d, int n, Timing* timing) {
    const double start = Seconds();
    const layout::Completion done = Run(d, static_cast<size_t>(n) % QueryCount());
    const double took = Seconds() - start;
    if (n < 2) return;
    timing->seconds.push_back(took);
    timing->score_us += done.score_ns * 1e-3;
    timing->select_us += done.select_ns * 1e-3;
    timing->bytes = done.bytes_read;
  }

  void Time(uint32_t format, uint32_t k, int repeats) {
    Timing timing;
    for (int n = 0; n < repeats + 2; ++n) Measure(Query(format, k), n, &timing);
    std::printf("%s\n", timing.Text().c_str());
  }

  // Query codes not included.
  void Step(uint32_t format, uint32_t k, int repeats) {
    Descriptor d = Query(format, k);
    result_.resize(options_.sequences * ResultBytes(d));
    std::vector<memory_device::Operation> operations(options_.sequences);
    std::vector<layout::Completion> done(options_.sequences);
    Timing timing;
    for (int n = 0; n < repeats + 2; ++n) {
      MakeQuery(d, static_cast<size_t>(n) % QueryCount());
      if (n == 2) timing = {};
      timing.bytes = 0;
      const double start = Seconds();
      for (uint32_t layer = 0; layer < options_.layers; ++layer) {
        d.layer_slot = static_cast<uint16_t>(layer);
        for (uint32_t s = 0; s < options_.sequences; ++s) {
          d.index_id = IndexOf(format, s);
          operations[s] = {d, owner_, payload_.data(), result_.data() + s * ResultBytes(d)};
        }
        device_->Submit(operations);
        device_->Poll(done);
        for (const layout::Completion& one : done) {
          timing.score_us += one.score_ns * 1e-3;
          timing.select_us += one.select_ns * 1e-3;
          timing.bytes += one.bytes_read;
        }
      }
      timing.seconds.push_back(Seconds() - start);
    }
    std::printf("%s\n", timing.Text().c_str());
  }

  void Pair(uint32_t format, uint32_t k, uint32_t k1, int repeats) {
    Descriptor two_stages = Query(format, k);
    two_stages.k1 = k1;
    Timing one;
    Timing two;
    for (int n = 0; n < repeats + 2; ++n) {
      Measure(Query(format, k), n, &one);
      Measure(two_stages, n, &two);
    }
    std::printf("{\"one_stage\": %s, \"cascade\": %s}\n", one.Text().c_str(), two.Text().c_str());
  }

  void WriteIds(uint32_t format, uint32_t k, const std::string& path) {
    const Descriptor d = Query(format, k);
    std::ofstream file(path, std::ios::binary);
    for (size_t query = 0; query < QueryCount(); ++query) {
      Run(d, query);
      const size_t block = result_.size() / options_.heads;
      for (uint32_t h = 0; h < options_.heads; ++h) {
        file.write(reinterpret_cast<const char*>(result_.data()) + h * block + sizeof(layout::ResultHeader),
                   static_cast<std::streamsize>(k) * 4);
      }
    }
    std::printf("{\"queries\": %zu}\n", QueryCount());
  }

  // Each thread reads its own half of memory that no cache holds; the best of five.
  double Bandwidth() {
    constexpr size_t kWords = size_t{64} << 20;  // 512 MiB
    void* mapped = mmap(nullptr, kWords * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return 0;
    madvise(mapped, kWords * 8, MADV_HUGEPAGE);  // as the indexes' memory is
    auto* memory = static_cast<uint64_t*>(mapped);
    std::fill_n(memory, kWords, 1);
    double best = 0;
    for (int n = 0; n < 5; ++n) {
      std::vector<std::thread> team;
      std::vector<uint64_t> sums(static_cast<size_t>(options_.threads) * 8);
      const double start = Seconds();
      for (int t = 0; t < options_.threads; ++t) {
        team.emplace_back([&, t] {
          const size_t part = kWords / static_cast<size_t>(options_.threads);
          uint64_t sum = 0;
          for (size_t i = part * static_cast<size_t>(t); i < part * static_cast<size_t>(t + 1); ++i)
            sum += memory[i];
          sums[static_cast<size_t>(t) * 8] = sum;
        });
      }
      for (std::thread& one : team) one.join();
      best = std::max(best, static_cast<double>(kWords * 8) / (Seconds() - start));
      if (sums[0] == 0) return 0;
    }
    munmap(mapped, kWords * 8);
    return best;
  }

  const Options options_;
  std::vector<float> keys_;
  std::vector<float> queries_;
  std::unique_ptr<memory_device::MemoryDevice> device_;
  std::unique_ptr<memory_device::IndexTable> table_;
  uint32_t owner_ = 0;
  std::vector<uint8_t> payload_;
  std::vector<uint8_t> result_;
};

}  // namespace
}  // namespace mnemo

int main(int argc, char** argv) {
  mnemo::Options options;
  CLI::App app("Times relevancy and top-k on the memory device; commands on standard input.");
  app.add_option("--keys", options.keys, "float32 [heads][tokens][dim]; without it, Gaussian keys");
  app.add_option("--queries", options.queries, "float32 [queries][heads][group][dim]");
  app.add_option("--isa", options.isa, "instruction set");
  app.add_option("--tokens", options.tokens, "whole pages of 64");
  app.add_option("--dim", options.dim, "a power of two, 16 to 512");
  app.add_option("--heads", options.heads, "KV heads");
  app.add_option("--group", options.group, "queries a head");
  app.add_option("--layers", options.layers, "layers of an index");
  app.add_option("--sequences", options.sequences, "indexes a format, at most 256");
  app.add_option("--threads", options.threads, "threads");
  app.add_option("--formats", options.formats, "codes2, codes4, codes8, bounds, means");
  CLI11_PARSE(app, argc, argv);
  mnemo::Relevancy relevancy(options);
  if (const absl::Status status = relevancy.Prepare(); !status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    relevancy.Obey(line);
  }
  return 0;
}
