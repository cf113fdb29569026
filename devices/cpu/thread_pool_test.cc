#include "devices/cpu/thread_pool.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <numeric>
#include <random>
#include <utility>

namespace mnemo::devices::cpu {
namespace {

// Every item of a step adds up the results of all items of the previous step, in plain memory. A step that
// begins too early, or an item done twice or not at all, gives other sums, and a race under the thread
// sanitizer.
class Relay : public ThreadPool::Job {
 public:
  Relay(uint32_t seed, int steps, int threads)
      : random_(seed), steps_(steps), calls_(static_cast<size_t>(threads)) {}

  bool NextStep(ThreadPool::Step* step) override {
    if (step_++ == steps_) return false;
    Finish();
    // Mostly few items, so that threads are often late; sometimes none at all.
    const size_t count = random_() % 8 == 0 ? random_() % 200 : random_() % 6;
    after_.assign(count, -1);
    for (std::atomic<int>& calls : calls_) calls.store(0, std::memory_order_relaxed);
    pause_ = random_() % 40 == 0;
    *step = {.items = static_cast<int64_t>(count), .alone = random_() % 4 == 0};
    return true;
  }

  void Work(int thread, ThreadPool::Items& items) override {
    if (calls_[static_cast<size_t>(thread)].fetch_add(1) != 0) failed_.store(true);
    int64_t last = -1;
    for (int64_t item; (item = items.Next()) != ThreadPool::Items::kNone; last = item) {
      if (item <= last || item >= static_cast<int64_t>(after_.size())) failed_.store(true);
      int64_t& value = after_[static_cast<size_t>(item)];
      if (value != -1) failed_.store(true);
      value = Sum(before_) + item;
      // Longer than the spin time of a thread, so the others fall asleep.
      if (pause_ && item % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    if (last == -1) failed_.store(true);
  }

  int64_t Result() {
    Finish();
    return Sum(before_);
  }
  bool failed() const { return failed_.load(); }

 private:
  static int64_t Sum(const std::vector<int64_t>& values) {
    return std::accumulate(values.begin(), values.end(), int64_t{1}) % 1000003;
  }
  void Finish() {
    if (!after_.empty()) before_ = std::exchange(after_, {});
  }

  std::mt19937 random_;
  const int steps_;
  int step_ = 0;
  bool pause_ = false;
  std::vector<int64_t> before_;
  std::vector<int64_t> after_;
  std::vector<std::atomic<int>> calls_;
  std::atomic<bool> failed_ = false;
};

TEST_CASE("steps follow each other and every item is done once, with fewer and more threads than cores") {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    ThreadPool one(1, {});
    Relay alone(seed, 2000, 1);
    one.Run(&alone);
    REQUIRE_FALSE(alone.failed());
    const int64_t wanted = alone.Result();
    for (int threads : {2, 3, 4, 7}) {
      INFO("seed " << seed << ", " << threads << " threads");
      ThreadPool pool(threads, {});
      REQUIRE(pool.threads() == threads);
      Relay relay(seed, 2000, threads);
      pool.Run(&relay);
      CHECK_FALSE(relay.failed());
      CHECK(relay.Result() == wanted);
    }
  }
}

TEST_CASE("jobs follow each other at once and after a pause that lets the threads fall asleep") {
  ThreadPool one(1, {});
  ThreadPool pool(3, {});
  for (uint32_t job = 0; job < 2000; ++job) {
    INFO("job " << job);
    Relay alone(job, static_cast<int>(job % 5), 1);
    one.Run(&alone);
    Relay relay(job, static_cast<int>(job % 5), 3);
    pool.Run(&relay);
    REQUIRE_FALSE(relay.failed());
    REQUIRE(relay.Result() == alone.Result());
    if (job % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Steps of two items. Each item waits a short time for the other, until two have met once.
class Meeting : public ThreadPool::Job {
 public:
  bool NextStep(ThreadPool::Step* step) override {
    here_.store(0);
    step->items = 2;
    return !met_.load();
  }
  void Work(int, ThreadPool::Items& items) override {
    for (int64_t item; (item = items.Next()) != ThreadPool::Items::kNone;) {
      here_.fetch_add(1);
      for (int i = 0; i < 1000 && !met_.load(); ++i) {
        if (here_.load() == 2 && item == 0) met_.store(true);
        std::this_thread::yield();
      }
    }
  }

 private:
  std::atomic<int> here_ = 0;
  std::atomic<bool> met_ = false;
};

TEST_CASE("the items of a step are done by several threads at once") {
  for (int threads : {2, 4}) {
    ThreadPool pool(threads, {});
    Meeting meeting;
    pool.Run(&meeting);
    SUCCEED("ended");
  }
}

// Counts the threads that take part.
class Solo : public ThreadPool::Job {
 public:
  bool NextStep(ThreadPool::Step* step) override {
    *step = {.items = 50, .alone = true};
    return ++steps_ <= 3;
  }
  void Work(int thread, ThreadPool::Items& items) override {
    if (thread != 0) others_.store(true);
    while (items.Next() != ThreadPool::Items::kNone) done_.fetch_add(1);
  }
  int done() const { return done_.load(); }
  bool others() const { return others_.load(); }

 private:
  int steps_ = 0;
  std::atomic<int> done_ = 0;
  std::atomic<bool> others_ = false;
};

TEST_CASE("a job of steps to be done alone stays on the caller's thread") {
  ThreadPool pool(3, {});
  Solo solo;
  pool.Run(&solo);
  CHECK(solo.done() == 150);
  CHECK_FALSE(solo.others());
}

TEST_CASE("a pool that was never used ends") {
  ThreadPool pool(4, {0, 1});
  CHECK(pool.threads() == 4);
}

}  // namespace
}  // namespace mnemo::devices::cpu
