#include "server/worker/scheduler.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/worker/request_check.h"

namespace mnemo::worker {
namespace {

using devices::kPageTokens;

// A scheduler with a device that is a table: each slot of each page remembers which ids up to which position
// it was computed for. A request whose pages are lost, mixed up or shared wrongly reads a wrong entry.
class Bench {
 public:
  explicit Bench(SchedulerOptions options)
      : options_(options), scheduler_(options), slots_(options.kv_pages * kPageTokens) {}
  ~Bench() {
    while (!live_.empty()) Remove(live_.begin()->second.get());
  }

  Request* Add(EngineRequest spec) {
    const RequestLimits limits{.vocabulary = 1000, .context_tokens = 1 << 20, .kv_pages = options_.kv_pages};
    REQUIRE(CheckRequest(spec, limits).ok());
    spec.id = arrivals_;
    auto request = std::make_unique<Request>(std::move(spec), arrivals_, Request::Clock::time_point{});
    Request* raw = request.get();
    live_[arrivals_++] = std::move(request);
    scheduler_.Add(raw);
    return raw;
  }

  void Remove(Request* request) {
    scheduler_.Remove(request);
    live_.erase(request->arrival);
  }

  // One step; finished requests are moved out of the way, with their ids.
  void Step() {
    scheduler_.Admit({});
    CheckOrder();
    const auto plan = scheduler_.Plan();
    CHECK(plan.empty() == scheduler_.running().empty());
    int rows = 0;
    bool prefill_began = false;
    for (const PlannedSequence& sequence : plan) {
      const Request& request = *sequence.request;
      REQUIRE(request.admission.running);
      rows += sequence.row_count;
      if (request.prefilling()) {
        prefill_began = true;
        REQUIRE(request.pages.computed + sequence.row_count <= request.prefill_end());
      } else {
        REQUIRE_FALSE(prefill_began);
        REQUIRE(sequence.row_count == 1);
      }
      Compute(request, sequence.row_count);
    }
    REQUIRE(rows <= options_.max_batch_rows);
    // Checked after all have written: no request wrote over another's page.
    for (const PlannedSequence& sequence : plan) CheckPages(*sequence.request, sequence.row_count);
    scheduler_.Commit();
    std::vector<Request*> finished;
    for (const PlannedSequence& sequence : plan) {
      Request* request = sequence.request;
      CheckPages(*request, 0);
      if (request->pages.computed == request->token_count() && request->spec.max_tokens > 0) {
        request->AppendOutput(static_cast<int32_t>(Signature(*request, request->pages.computed - 1) % 1000));
      }
      if (request->Outcome() != EngineFinish::kNone) finished.push_back(request);
    }
    for (Request* request : finished) {
      outputs[request->arrival] = {request->progress.ids.begin() + request->prompt_count(),
                                   request->progress.ids.end()};
      order.push_back(request->arrival);
      cached[request->arrival] = request->admission.cached_tokens;
      Remove(request);
    }
  }

  int StepsUntilIdle(int limit) {
    int steps = 0;
    while (!live_.empty() && steps < limit) {
      Step();
      ++steps;
    }
    return steps;
  }

  Scheduler& scheduler() { return scheduler_; }
  std::map<uint64_t, std::unique_ptr<Request>>& live() { return live_; }

  std::map<uint64_t, std::vector<int32_t>> outputs;
  std::map<uint64_t, int> cached;
  std::vector<uint64_t> order;

 private:
  static uint64_t Signature(const Request& request, int position) {
    uint64_t signature = 1469598103934665603u;
    for (int i = 0; i <= position; ++i) {
      signature = (signature ^ static_cast<uint64_t>(request.progress.ids[i])) * 1099511628211u;
    }
    return signature;
  }

  uint64_t& Slot(const Request& request, int position) {
    const int page = request.pages.table.at(position / kPageTokens);
    return slots_.at(page * kPageTokens + position % kPageTokens);
  }

  void Compute(const Request& request, int row_count) {
    for (int i = 0; i < row_count; ++i) {
      const int position = request.pages.computed + i;
      // A published page may be read by others: nobody writes it again.
      REQUIRE(position / kPageTokens >= request.pages.published);
      Slot(request, position) = Signature(request, position);
    }
  }

  void CheckPages(const Request& request, int row_count) {
    uint64_t signature = 1469598103934665603u;
    for (int position = 0; position < request.pages.computed + row_count; ++position) {
      signature = (signature ^ static_cast<uint64_t>(request.progress.ids[position])) * 1099511628211u;
      if (Slot(request, position) != signature) {
        FAIL("request " << request.arrival << " has a wrong page for position " << position);
      }
    }
  }

  void CheckOrder() {
    const auto senior = [](const Request* a, const Request* b) { return a->IsSenior(*b); };
    const auto running = scheduler_.running();
    const auto waiting = scheduler_.waiting();
    REQUIRE(std::is_sorted(running.begin(), running.end(), senior));
    REQUIRE(std::is_sorted(waiting.begin(), waiting.end(), senior));
    REQUIRE(static_cast<int>(running.size()) <= options_.max_running);
    int held = 0;
    int reserved = 0;
    for (const Request* request : running) {
      held += static_cast<int>(request->pages.table.size());
      reserved += request->pages.reserved;
    }
    REQUIRE(scheduler_.outstanding_count() == reserved - held);
    REQUIRE(scheduler_.outstanding_count() <= scheduler_.cache().available_count());
    REQUIRE(scheduler_.cache().used_count() <= held);
    if (running.empty()) REQUIRE(scheduler_.cache().used_count() == 0);
    if (running.empty()) REQUIRE(waiting.empty());
  }

  SchedulerOptions options_;
  Scheduler scheduler_;
  std::vector<uint64_t> slots_;
  std::map<uint64_t, std::unique_ptr<Request>> live_;
  uint64_t arrivals_ = 0;
};

SchedulerOptions Options() {
  return {.max_batch_rows = 128,
          .max_running = 4,
          .max_live = 1000,
          .kv_pages = 16,
          .reserve_tokens = 64,
          .prefix_cache = true,
          .max_sessions = 2,
          .hash_seed = 5};
}

EngineRequest Spec(std::vector<int32_t> prompt, int max_tokens) {
  EngineRequest spec;
  spec.prompt = std::move(prompt);
  spec.max_tokens = max_tokens;
  return spec;
}

std::vector<int32_t> Prompt(int length, int32_t first = 0) {
  std::vector<int32_t> prompt(length);
  for (int i = 0; i < length; ++i) prompt[i] = (first + i) % 1000;
  return prompt;
}

}  // namespace

TEST_CASE("prefill is cut into chunks beside the decode rows") {
  Bench bench(Options());
  const Request* first = bench.Add(Spec(Prompt(10), 100));
  bench.Step();
  CHECK(first->output_count() == 1);
  const Request* second = bench.Add(Spec(Prompt(300, 500), 2));
  bench.Step();
  CHECK(first->output_count() == 2);
  CHECK(second->pages.computed == 127);
  bench.Step();
  CHECK(second->pages.computed == 254);
  bench.Step();
  CHECK(second->output_count() == 1);
}

TEST_CASE("requests that arrive together share what the first has computed") {
  Bench bench(Options());
  for (int i = 0; i < 3; ++i) bench.Add(Spec(Prompt(200), 1));
  CHECK(bench.StepsUntilIdle(10) <= 4);
  CHECK(bench.cached[0] == 0);
  CHECK(bench.cached[1] == 128);  // the third page was computed in the same step by both
  CHECK(bench.cached[2] == 192);
  CHECK(bench.scheduler().prefix_queries_tokens() == 600);
  CHECK(bench.scheduler().prefix_hit_tokens() == 320);
  CHECK(bench.scheduler().cache().cached_count() == 3);
}

TEST_CASE("without the prefix cache nothing is kept") {
  SchedulerOptions options = Options();
  options.prefix_cache = false;
  Bench bench(options);
  EngineRequest spec = Spec(Prompt(200), 1);
  spec.session_id = "s";
  bench.Add(spec);
  bench.Add(spec);
  bench.StepsUntilIdle(10);
  CHECK(bench.cached[1] == 0);
  CHECK(bench.scheduler().cache().cached_count() == 0);
  CHECK(bench.scheduler().prefix_queries_tokens() == 0);
}

TEST_CASE("pages of decode steps are not shared") {
  Bench bench(Options());
  EngineRequest spec = Spec(Prompt(200), 80);
  spec.decode_from = 100;
  bench.Add(spec);
  bench.StepsUntilIdle(500);
  CHECK(bench.scheduler().cache().cached_count() == 1);  // [0, 64): prefilled in full
  bench.Add(Spec(Prompt(200), 1));
  bench.StepsUntilIdle(10);
  CHECK(bench.cached[1] == 64);
  // Nor does a hit replace decode steps that were asked for.
  bench.Add(spec);
  bench.StepsUntilIdle(500);
  CHECK(bench.cached[2] == 64);
  CHECK(bench.outputs[2] == bench.outputs[0]);
}

TEST_CASE("a whole prefill found in the cache goes on with decode steps at once") {
  Bench bench(Options());
  EngineRequest spec = Spec(Prompt(100), 1);
  spec.decode_from = 64;
  bench.Add(spec);
  bench.StepsUntilIdle(100);
  bench.Add(spec);
  bench.Add(spec);
  bench.Step();
  for (const auto& [arrival, request] : bench.live()) CHECK(request->pages.computed == 65);
}

TEST_CASE("admission reserves what the request needs soon") {
  SchedulerOptions options = Options();
  options.kv_pages = 4;
  Bench bench(options);
  const Request* first = bench.Add(Spec(Prompt(64), 100));       // reserves two pages
  const Request* second = bench.Add(Spec(Prompt(65, 300), 64));  // reserves two
  const Request* third = bench.Add(Spec(Prompt(1, 700), 1));
  bench.Step();
  CHECK(first->admission.running);
  CHECK(second->admission.running);
  CHECK_FALSE(third->admission.running);
  CHECK(bench.scheduler().cache().used_count() == 2);  // reserved is not taken
  bench.StepsUntilIdle(500);
  CHECK(bench.scheduler().preemptions() == 0);
}

TEST_CASE("a waiting request runs as soon as it can share enough") {
  SchedulerOptions options = Options();
  options.kv_pages = 5;
  Bench bench(options);
  const Request* first = bench.Add(Spec(Prompt(190), 60));  // reserves four pages
  const Request* second = bench.Add(Spec(Prompt(190), 1));  // three, two of them the first one's
  bench.Step();
  CHECK_FALSE(second->admission.running);
  bench.Step();
  bench.Step();
  CHECK(first->admission.running);
  CHECK(bench.cached[1] == 128);
}

TEST_CASE("the junior request is preempted and goes on with the same tokens") {
  SchedulerOptions options = Options();
  options.kv_pages = 6;
  Bench alone(options);
  const EngineRequest first = Spec(Prompt(100), 250);
  const EngineRequest second = Spec(Prompt(100, 400), 200);
  alone.Add(first);
  alone.StepsUntilIdle(1000);
  alone.Add(second);
  alone.StepsUntilIdle(1000);

  Bench bench(options);
  bench.Add(first);
  bench.Add(second);
  const Request* third = bench.Add(Spec(Prompt(10, 800), 5));
  while (bench.scheduler().preemptions() == 0) {
    REQUIRE(bench.live().size() == 3);
    REQUIRE_FALSE(third->admission.running);  // no pages that are not reserved
    bench.Step();
  }
  REQUIRE(bench.scheduler().waiting().size() == 2);
  CHECK(bench.scheduler().waiting()[0]->arrival == 1);  // in front of what came later
  CHECK(bench.scheduler().waiting()[0]->pages.table.empty());
  bench.StepsUntilIdle(2000);
  CHECK(bench.outputs[0] == alone.outputs[0]);
  CHECK(bench.outputs[1] == alone.outputs[1]);
  CHECK(bench.order.front() == 0);
}

TEST_CASE("priority comes before arrival") {
  SchedulerOptions options = Options();
  options.max_running = 1;
  Bench bench(options);
  for (const int priority : {2, 1, 0, 1}) {
    EngineRequest spec = Spec(Prompt(5, 10 * priority), 3);
    spec.priority = priority;
    bench.Add(spec);
  }
  bench.StepsUntilIdle(100);
  CHECK(bench.order == std::vector<uint64_t>{2, 1, 3, 0});
  CHECK(bench.scheduler().preemptions() == 0);
}

TEST_CASE("a better priority takes the place of a running request") {
  SchedulerOptions options = Options();
  SECTION("for want of a place") { options.max_running = 1; }
  SECTION("for want of pages") { options.kv_pages = 4; }
  Bench bench(options);
  EngineRequest spec = Spec(Prompt(100), 100);
  bench.Add(spec);
  for (int i = 0; i < 20; ++i) bench.Step();
  spec.prompt = Prompt(100, 500);
  bench.Add(spec);
  bench.Step();
  CHECK(bench.scheduler().running()[0]->arrival == 0);  // equal: it waits
  spec.priority = -1;
  bench.Add(spec);
  bench.Step();
  CHECK(bench.scheduler().running()[0]->arrival == 2);
  bench.StepsUntilIdle(1000);
  CHECK(bench.order == std::vector<uint64_t>{2, 0, 1});
}

TEST_CASE("more decoding requests than rows take turns, and prefill gets its part") {
  SchedulerOptions options = Options();
  options.max_running = 8;
  options.max_batch_rows = GENERATE(1, 2, 3);
  CAPTURE(options.max_batch_rows);
  Bench bench(options);
  for (int i = 0; i < 6; ++i) bench.Add(Spec(Prompt(3, 10 * i), 60));
  for (int i = 0; i < 100; ++i) bench.Step();
  int least = 1000;
  int most = 0;
  for (const auto& [arrival, request] : bench.live()) {
    REQUIRE(request->output_count() > 0);
    least = std::min(least, request->output_count());
    most = std::max(most, request->output_count());
  }
  CHECK(most - least < 20);
  const Request* late = bench.Add(Spec(Prompt(20, 900), 2));
  for (int i = 0; i < 45 && late->prefilling(); ++i) bench.Step();
  CHECK_FALSE(late->prefilling());
  CHECK(bench.StepsUntilIdle(1000) < 1000);
}

TEST_CASE("what a session keeps gives way to requests only") {
  SchedulerOptions options = Options();
  options.kv_pages = 8;
  Bench bench(options);
  EngineRequest chat = Spec(Prompt(130), 4);
  chat.session_id = "chat";
  bench.Add(chat);
  bench.StepsUntilIdle(100);
  for (int i = 1; i < 8; ++i) {  // others come by, one at a time
    bench.Add(Spec(Prompt(200, 100 * i), 4));
    bench.StepsUntilIdle(100);
  }
  bench.Add(chat);
  bench.StepsUntilIdle(100);
  CHECK(bench.cached[8] == 128);
  bench.Add(Spec(Prompt(8 * kPageTokens - 3, 777), 4));  // needs every page
  bench.StepsUntilIdle(100);
  CHECK(bench.outputs[9].size() == 4);
  CHECK(bench.scheduler().sessions().size() == 0);
}

TEST_CASE("a storm of requests, cancelled at random, in pools of all sizes") {
  const uint64_t seed = GENERATE(range(uint64_t{1}, uint64_t{25}));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  SchedulerOptions options = Options();
  options.max_batch_rows = std::vector<int>{1, 7, 64, 512}[random() % 4];
  options.max_running = 1 + static_cast<int>(random() % 12);
  options.kv_pages = 3 + static_cast<int>(random() % 30);
  options.reserve_tokens = 1 + static_cast<int>(random() % 100);
  options.prefix_cache = random() % 4 != 0;
  Bench bench(options);
  std::vector<EngineRequest> specs;
  const auto add = [&] {
    const int room = options.kv_pages * kPageTokens;
    EngineRequest spec = Spec(
        Prompt(1 + static_cast<int>(random() % std::min(room, 400)), static_cast<int32_t>(random() % 3)), 0);
    const int left = std::min(room - static_cast<int>(spec.prompt.size()) + 1, 150);
    spec.max_tokens = static_cast<int32_t>(random() % (left + 1));
    spec.priority = static_cast<int32_t>(random() % 3);
    if (random() % 4 == 0) spec.session_id = std::to_string(random() % 4);
    if (random() % 5 == 0) spec.decode_from = 1 + static_cast<int32_t>(random() % spec.prompt.size());
    bench.Add(spec);
    specs.push_back(spec);
  };
  for (int round = 0; round < 4000; ++round) {
    if (bench.live().size() < 20 && random() % 3 == 0) add();
    if (!bench.live().empty() && random() % 10 == 0) {
      auto victim = bench.live().begin();
      std::advance(victim, random() % bench.live().size());
      bench.Remove(victim->second.get());
    }
    if (random() % 50 == 0) bench.scheduler().sessions().Forget(std::to_string(random() % 4));
    bench.Step();
  }
  // Without new arrivals all end, since the senior one gets on, or takes its turn, at every step.
  CHECK(bench.StepsUntilIdle(200000) < 200000);
  CHECK(bench.scheduler().cache().used_count() == 0);
  bench.scheduler().sessions().ForgetAll();
  CHECK(bench.scheduler().cache().available_count() == options.kv_pages);

  // The tokens are those of a request alone, whatever happened in between.
  options.max_running = 1;
  options.prefix_cache = false;
  Bench alone(options);
  for (const auto& [arrival, output] : bench.outputs) {
    if (arrival % 7 != 0) continue;
    EngineRequest spec = specs[arrival];
    const Request* request = alone.Add(spec);
    const uint64_t number = request->arrival;
    alone.StepsUntilIdle(100000);
    CHECK(alone.outputs[number] == output);
  }
}

}  // namespace mnemo::worker
