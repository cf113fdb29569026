#include "server/frontend/watchdog.h"

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/eventually.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;
using Names = std::vector<std::string>;

TEST_CASE("a loop is stuck whose count stands still from one round to the next") {
  LoopWatch watch;
  CHECK(watch.Next({{"a", 0}, {"b", 7}}).stuck.empty());
  CHECK(watch.Next({{"a", 1}, {"b", 8}}).rounds == 0);
  LoopWatch::Round round = watch.Next({{"a", 1}, {"b", 9}});
  CHECK(round.stuck == Names{"a"});
  CHECK(round.rounds == 1);
  round = watch.Next({{"a", 1}, {"b", 9}});
  CHECK(round.stuck == Names{"a", "b"});
  CHECK(round.rounds == 2);
  round = watch.Next({{"a", 2}, {"b", 9}});
  CHECK(round.stuck == Names{"b"});
  CHECK(round.rounds == 2);
  round = watch.Next({{"a", 3}, {"b", 10}});
  CHECK(round.stuck.empty());
  CHECK(round.rounds == 0);
}

TEST_CASE("a loop that appears has a round of time, one that is gone is not missed") {
  LoopWatch watch;
  CHECK(watch.Next({{"a", 5}}).stuck.empty());
  CHECK(watch.Next({{"a", 6}, {"b", 0}}).stuck.empty());
  CHECK(watch.Next({{"b", 1}}).stuck.empty());
  CHECK(watch.Next({{"a", 6}, {"b", 2}}).stuck.empty());
  CHECK(watch.Next({{"a", 6}, {"b", 3}}).stuck == Names{"a"});
}

TEST_CASE("the watchdog tells of a loop that stops, and of its return") {
  std::atomic<uint64_t> count = 0;
  std::atomic<bool> turns = true;
  std::mutex mutex;
  LoopWatch::Round newest;
  const auto Newest = [&] {
    std::lock_guard lock(mutex);
    return newest;
  };
  Watchdog watchdog({.interval = milliseconds(1),
                     .ask =
                         [&] {
                           if (turns) ++count;
                           return std::vector<dispatch::LoopTurns>{{"loop", count}};
                         },
                     .on_round =
                         [&](const LoopWatch::Round& round) {
                           std::lock_guard lock(mutex);
                           newest = round;
                         }});
  CHECK(testing::Eventually([&] { return count > 3; }));
  CHECK(Newest().stuck.empty());
  turns = false;
  CHECK(testing::Eventually([&] { return Newest().rounds > 2; }));
  CHECK(Newest().stuck == Names{"loop"});
  turns = true;
  CHECK(testing::Eventually([&] { return Newest().rounds == 0; }));
}

TEST_CASE("the interval is a quarter of what systemd grants this process") {
  const milliseconds without(5000);
  const auto Interval = [&](const char* microseconds, const std::string& pid) {
    if (microseconds != nullptr) ::setenv("WATCHDOG_USEC", microseconds, 1);
    if (!pid.empty()) ::setenv("WATCHDOG_PID", pid.c_str(), 1);
    const milliseconds interval = WatchdogInterval(without);
    ::unsetenv("WATCHDOG_USEC");
    ::unsetenv("WATCHDOG_PID");
    return interval;
  };
  CHECK(Interval(nullptr, "") == without);
  CHECK(Interval("30000000", "") == milliseconds(7500));
  CHECK(Interval("30000000", std::to_string(::getpid())) == milliseconds(7500));
  CHECK(Interval("30000000", "1") == without);
  CHECK(Interval("100", "") == milliseconds(1));
  for (const char* wrong : {"", "0", "-5", "3x", "99999999999999999999"}) {
    CAPTURE(wrong);
    CHECK(Interval(wrong, "") == without);
  }
}

}  // namespace
}  // namespace mnemo::frontend
