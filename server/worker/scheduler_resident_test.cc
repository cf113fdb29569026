// Resident requests: the pages that are in the worker at each step.
#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "server/worker/request_check.h"
#include "server/worker/scheduler.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;
using memory::AttentionSettings;

constexpr int kContext = 4096;

RequestLimits Limits(const SchedulerOptions& options) {
  return {.vocabulary = 1000,
          .context_tokens = kContext,
          .kv_pages = options.kv_pages,
          .extra_pages = options.extra_pages,
          .any_placement_in_service = true,
          .memory = {.layers = 2, .kv_heads = 2, .group = 2, .head_dim = 16, .softmax_scale = 1}};
}

AttentionSettings Sparse(int budget) {
  AttentionSettings settings;
  settings.method = AttentionSettings::Method::kTokenTopk;
  settings.token_budget = budget;
  settings.keep_first = 4;
  return settings;
}

// Does what Engine does around the scheduler, without a device: complete pages are kept before each step.
class Bench {
 public:
  explicit Bench(const SchedulerOptions& options) : options_(options), scheduler_(options) {}
  ~Bench() {
    while (!live_.empty()) Remove(live_.back().get());
  }

  void Add(EngineRequest spec) {
    const RequestLimits limits = Limits(options_);
    REQUIRE(CheckRequest(spec, limits).ToString() == "OK");
    live_.push_back(std::make_unique<Request>(std::move(spec), arrivals_++, Request::Clock::time_point{}));
    Request* request = live_.back().get();
    request->residence.share = ResidencyOf(request->spec.attention, request->max_positions(), limits);
    residents += request->resident() ? 1 : 0;
    scheduler_.Add(request);
  }
  void Remove(Request* request) {
    scheduler_.Remove(request);
    std::erase_if(live_, [request](const auto& other) { return other.get() == request; });
  }
  bool idle() const { return live_.empty(); }
  const std::vector<std::unique_ptr<Request>>& live() const { return live_; }
  Scheduler& scheduler() { return scheduler_; }

  void Step() {
    scheduler_.Admit({});
    for (Request* request : scheduler_.running()) {
      if (request->resident())
        request->residence.kept_pages =
            std::max(request->residence.kept_pages, request->pages.computed / kPageTokens);
    }
    int staged = 0;
    const auto plan = scheduler_.Plan();
    for (const PlannedSequence& sequence : plan) {
      if (sequence.request->resident()) Check(*sequence.request, sequence.row_count, &staged);
    }
    REQUIRE(staged <= options_.staging_pages);
    CheckDistinct();
    scheduler_.Commit();
    std::vector<Request*> finished;
    for (const PlannedSequence& sequence : plan) {
      Request* request = sequence.request;
      if (request->pages.computed == request->token_count() && request->spec.max_tokens > 0)
        request->AppendOutput(7);
      if (request->Outcome() != EngineFinish::kNone) finished.push_back(request);
    }
    for (Request* request : finished) {
      Remove(request);
      ++ended;
    }
  }

  int residents = 0;
  int ended = 0;
  int staged_steps = 0;
  int dropped_steps = 0;

 private:
  void Check(const Request& request, int row_count, int* staged) {
    const AttentionSettings& settings = request.spec.attention;
    const auto here = [&](int position) {
      return request.pages.resident.indexed()[static_cast<size_t>(position / kPageTokens)] >= 0;
    };
    for (int row = 0; row < row_count; ++row) {
      REQUIRE(here(request.pages.computed + row));
      REQUIRE(request.pages.table[static_cast<size_t>((request.pages.computed + row) / kPageTokens)] >=
              options_.kv_pages);
    }
    int remote = 0;
    for (int page = 0; page < request.pages.computed / kPageTokens; ++page) {
      if (request.pages.resident.indexed()[static_cast<size_t>(page)] >= 0) continue;
      REQUIRE(page < request.residence.kept_pages);
      ++remote;
    }
    if (request.prefilling()) {
      *staged += remote;
      staged_steps += remote > 0 ? 1 : 0;
      return;
    }
    dropped_steps += remote > 0 ? 1 : 0;
    // A row within the budget attends to everything, later rows to both ends and to their selection.
    if (request.pages.computed < settings.token_budget) REQUIRE(remote == 0);
    for (int p = 0; p < std::min(settings.keep_first, request.pages.computed); ++p) REQUIRE(here(p));
    const int tail = request.pages.computed - settings.keep_last - settings.reuse_interval - 2 * kPageTokens;
    for (int p = std::max(tail, 0); p < request.pages.computed; ++p) REQUIRE(here(p));
  }

  void CheckDistinct() {
    std::set<int32_t> pages;
    std::set<int32_t> extra;
    for (const Request* request : scheduler_.running()) {
      if (!request->resident()) continue;
      for (const auto* list : {&request->pages.resident.indexed(), &request->pages.resident.free(),
                               &request->pages.resident.hot()}) {
        for (const int32_t page : *list) {
          if (page < 0) continue;
          REQUIRE(page < options_.kv_pages);
          REQUIRE(pages.insert(page).second);
        }
      }
      for (const int32_t page : request->pages.table) REQUIRE(extra.insert(page).second);
    }
    REQUIRE(static_cast<int>(extra.size()) == scheduler_.extra_pages_used());
  }

  const SchedulerOptions options_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Request>> live_;
  uint64_t arrivals_ = 0;
};

SchedulerOptions Options() {
  return {.max_batch_rows = 192,
          .max_running = 5,
          .max_live = 1000,
          .kv_pages = 48,
          .extra_pages = 160,
          .staging_pages = kContext / kPageTokens,
          .reserve_tokens = 64,
          .prefix_cache = true,
          .max_sessions = 2,
          .hash_seed = 5};
}

}  // namespace

TEST_CASE("a storm of resident and other requests, cancelled and preempted at random") {
  const uint64_t seed = GENERATE(range(uint64_t{1}, uint64_t{13}));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  SchedulerOptions options = Options();
  options.max_batch_rows = std::vector<int>{1, 64, 192, 700}[random() % 4];
  options.kv_pages = 40 + static_cast<int>(random() % 60);
  options.extra_pages = 64 + static_cast<int>(random() % 100);
  Bench bench(options);
  for (int round = 0; round < 1500; ++round) {
    if (bench.live().size() < 10 && random() % 4 == 0) {
      EngineRequest spec;
      const bool sparse = random() % 4 != 0;
      spec.prompt.assign(1 + random() % (sparse ? 3000 : 1000), 5);
      spec.max_tokens = static_cast<int32_t>(random() % 300);
      spec.priority = static_cast<int32_t>(random() % 3);
      if (sparse) {
        spec.attention = Sparse(128 + static_cast<int>(random() % 200));
        spec.attention.keep_first = static_cast<int>(random() % 60);
        spec.attention.keep_last = static_cast<int>(random() % 60);
        spec.attention.reuse_interval = 1 + static_cast<int>(random() % 8);
        spec.attention.token_budget += spec.attention.keep_first + spec.attention.keep_last;
      }
      if (CheckRequest(spec, Limits(options)).ok()) bench.Add(std::move(spec));
    }
    if (!bench.live().empty() && random() % 40 == 0)
      bench.Remove(bench.live()[random() % bench.live().size()].get());
    bench.Step();
  }
  for (int step = 0; step < 100000 && !bench.idle(); ++step) bench.Step();
  CHECK(bench.idle());
  CHECK(bench.residents > 0);
  CHECK(bench.staged_steps > 0);
  CHECK(bench.dropped_steps > 0);
  CHECK(bench.scheduler().cache().used_count() == 0);
  CHECK(bench.scheduler().extra_pages_used() == 0);
}

}  // namespace mnemo::worker
