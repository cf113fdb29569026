// Thousands of requests from several threads, cancelled and timed out at random: each ends once, and no page
// is left.
#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "server/worker/engine_fixture.h"

namespace mnemo::worker {
namespace {

constexpr int kThreads = 3;
constexpr uint64_t kPerThread = 400 / MNEMO_TEST_REDUCTION;

EngineRequest RandomRequest(std::mt19937_64& random, uint64_t id) {
  EngineRequest request;
  request.id = id;
  const size_t length = 1 + random() % 200;
  const int32_t kind = static_cast<int32_t>(random() % 3);
  for (size_t i = 0; i < length; ++i) request.prompt.push_back((kind + static_cast<int32_t>(i) * 3) % 256);
  request.max_tokens = static_cast<int32_t>(random() % 60);
  request.sampling.seed = id;
  request.priority = static_cast<int32_t>(random() % 3);
  if (random() % 4 == 0) request.session_id = "s" + std::to_string(random() % 9);
  if (random() % 4 == 0) request.prompt_logprobs = 1;
  if (random() % 8 == 0) request.decode_from = 1 + static_cast<int32_t>(random() % length);
  if (random() % 8 == 0 && request.max_tokens > 4) request.generated = {1, 2, 3};
  if (random() % 4 == 0) {
    request.deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 20000);
  }
  return request;
}

struct Tally {
  int submitted = 0;
  int refused = 0;
};

void Submitter(EngineFixture* fixture, uint64_t seed, uint64_t first_id, std::vector<uint64_t>* accepted,
               Tally* tally) {
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < kPerThread;) {
    const uint64_t id = first_id + i;
    const absl::Status status = fixture->engine().Submit(RandomRequest(random, id));
    if (status.code() == absl::StatusCode::kResourceExhausted) {
      ++tally->refused;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    if (!status.ok()) return;  // `submitted` tells
    ++i;
    ++tally->submitted;
    accepted->push_back(id);
    if (random() % 3 == 0)
      fixture->engine().Cancel(
          (*accepted)[accepted->size() - 1 - random() % std::min<size_t>(accepted->size(), 4)], 0);
    if (random() % 50 == 0) fixture->engine().EndSession("s" + std::to_string(random() % 9));
    if (random() % 16 == 0) fixture->engine().Stats();
  }
}

}  // namespace

TEST_CASE("storms of submissions, cancellations and deadlines leave nothing behind") {
  for (const std::string& device : DeviceKindNames()) {
    const uint64_t seed = GENERATE(1, 2);
    CAPTURE(device, seed);
    FixtureOptions options;
    options.device = device;
    options.engine.max_batch_rows = seed == 1 ? 48 : 256;
    options.engine.max_running = 16;
    options.engine.max_waiting = 48;
    options.engine.kv_pages = seed == 1 ? 9 : 64;
    options.engine.reserve_tokens = 8;
    options.engine.max_sessions = 5;
    EngineFixture fixture(options);
    std::vector<uint64_t> accepted[kThreads];
    Tally tallies[kThreads];
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back(Submitter, &fixture, seed * 100 + t, uint64_t{1000000} * t, &accepted[t],
                           &tallies[t]);
    }
    for (std::thread& thread : threads) thread.join();
    int by_finish[4] = {};
    for (int t = 0; t < kThreads; ++t) {
      CHECK(tallies[t].submitted == kPerThread);
      for (const uint64_t id : accepted[t]) {
        const EngineResult result = fixture.sink().Wait(id);
        if (!result.broken.empty()) FAIL("request " << id << ": " << result.broken);
        ++by_finish[static_cast<int>(result.last.finish)];
      }
    }
    CHECK(by_finish[static_cast<int>(EngineFinish::kLength)] > 0);
    CHECK(by_finish[static_cast<int>(EngineFinish::kError)] > 0);
    const EngineStats stats = fixture.engine().Stats();
    CHECK(stats.kv_pages_used == 0);
    CHECK(stats.running == 0);
    CHECK(stats.waiting == 0);
    if (seed == 1) CHECK(stats.preemptions > 0);
  }
}

}  // namespace mnemo::worker
