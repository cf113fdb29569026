#include "devices/cpu/thread_pool.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <numeric>

namespace mnemo::devices::cpu {
namespace {

struct Relay {
  ThreadPool* pool;
  std::vector<int64_t> values;  // [threads]
  int steps;
};

// Each step, every thread adds up what all threads wrote in the step before: a barrier that lets one through
// too early gives another sum (and a race under the thread sanitizer).
void Pass(void* context, int thread) {
  Relay& relay = *static_cast<Relay*>(context);
  for (int step = 0; step < relay.steps; ++step) {
    const int64_t sum = std::accumulate(relay.values.begin(), relay.values.end(), int64_t{0}) % 1000003;
    relay.pool->Barrier();
    relay.values[static_cast<size_t>(thread)] = sum + thread;
    relay.pool->Barrier();
  }
}

std::vector<int64_t> PassAlone(int threads, int steps) {
  std::vector<int64_t> values(static_cast<size_t>(threads), 1);
  for (int step = 0; step < steps; ++step) {
    const int64_t sum = std::accumulate(values.begin(), values.end(), int64_t{0}) % 1000003;
    for (int i = 0; i < threads; ++i) values[static_cast<size_t>(i)] = sum + i;
  }
  return values;
}

TEST_CASE("a barrier keeps the steps of all threads apart, with fewer and more threads than cores") {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads, {});
    REQUIRE(pool.threads() == threads);
    Relay relay{&pool, std::vector<int64_t>(static_cast<size_t>(threads), 1), 200};
    pool.Run(Pass, &relay);
    CHECK(relay.values == PassAlone(threads, 200));
  }
}

TEST_CASE("jobs follow each other at once and after a pause that lets the threads fall asleep") {
  ThreadPool pool(3, {});
  struct Count {
    std::atomic<int> calls = 0;
    std::atomic<int> threads = 0;  // a bit for each that came
  };
  auto work = [](void* context, int thread) {
    Count& count = *static_cast<Count*>(context);
    count.calls.fetch_add(1);
    count.threads.fetch_or(1 << thread);
  };
  for (int i = 0; i < 300; ++i) {
    Count count;
    pool.Run(work, &count);
    REQUIRE(count.calls.load() == 3);
    REQUIRE(count.threads.load() == 7);
    if (i % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("a pool that was never used ends") {
  ThreadPool pool(4, {0, 1});
  CHECK(pool.threads() == 4);
}

}  // namespace
}  // namespace mnemo::devices::cpu
