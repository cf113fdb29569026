#include "server/frontend/readiness.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <vector>

#include "tests/support/eventually.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;
using TimePoint = ReadinessRule::TimePoint;

TimePoint At(int ms) { return TimePoint() + std::chrono::hours(1) + milliseconds(ms); }

TEST_CASE("no worker was ready yet: the grace does not count") {
  ReadinessRule rule(milliseconds(1000));
  CHECK_FALSE(rule.IsReady(At(0)));
  rule.SetReadyWorkers(0, At(10));
  CHECK_FALSE(rule.IsReady(At(10)));
  CHECK_FALSE(rule.Expiry().has_value());
  CHECK_FALSE(rule.has_served());
}

TEST_CASE("a restart shorter than the grace is not seen, a longer one is") {
  ReadinessRule rule(milliseconds(1000));
  rule.SetReadyWorkers(2, At(0));
  CHECK(rule.IsReady(At(0)));
  CHECK_FALSE(rule.Expiry().has_value());
  rule.SetReadyWorkers(1, At(100));
  CHECK(rule.IsReady(At(5000)));
  rule.SetReadyWorkers(0, At(6000));
  CHECK(rule.Expiry() == At(7000));
  CHECK(rule.IsReady(At(6999)));
  rule.SetReadyWorkers(1, At(6999));
  CHECK(rule.IsReady(At(8000)));
  rule.SetReadyWorkers(0, At(9000));
  // Told again, the count does not begin the grace anew.
  rule.SetReadyWorkers(0, At(9900));
  CHECK(rule.IsReady(At(9999)));
  CHECK_FALSE(rule.IsReady(At(10000)));
  rule.SetReadyWorkers(1, At(20000));
  CHECK(rule.IsReady(At(20000)));
}

TEST_CASE("a drain has no grace, and does not lengthen one") {
  ReadinessRule rule(milliseconds(1000));
  rule.SetReadyWorkers(1, At(0));
  rule.SetDraining(true);
  CHECK_FALSE(rule.IsReady(At(1)));
  rule.SetReadyWorkers(0, At(100));
  CHECK_FALSE(rule.Expiry().has_value());
  rule.SetDraining(false);
  CHECK(rule.IsReady(At(1099)));
  CHECK_FALSE(rule.IsReady(At(1100)));
}

TEST_CASE("a grace of 0 tells the loss at once, and a new grace counts from the loss") {
  ReadinessRule rule(milliseconds(0));
  rule.SetReadyWorkers(1, At(0));
  rule.SetReadyWorkers(0, At(10));
  CHECK_FALSE(rule.IsReady(At(10)));
  rule.SetGrace(milliseconds(50));
  CHECK(rule.IsReady(At(59)));
  CHECK_FALSE(rule.IsReady(At(60)));
}

TEST_CASE("each change is told once and in order, the end of the grace by itself") {
  std::mutex mutex;
  std::vector<bool> told;
  const auto Told = [&] {
    std::lock_guard lock(mutex);
    return told;
  };
  Readiness readiness(milliseconds(20), [&](bool is_ready) {
    std::lock_guard lock(mutex);
    told.push_back(is_ready);
  });
  readiness.SetReadyWorkers(0);
  CHECK(Told().empty());
  readiness.SetReadyWorkers(1);
  readiness.SetReadyWorkers(2);
  CHECK(Told() == std::vector<bool>{true});
  CHECK(readiness.is_ready());
  readiness.SetReadyWorkers(0);
  CHECK(testing::Eventually([&] { return Told() == std::vector<bool>{true, false}; }));
  CHECK_FALSE(readiness.is_ready());
  readiness.SetReadyWorkers(1);
  readiness.SetDraining(true);
  readiness.SetDraining(false);
  CHECK(Told() == std::vector<bool>{true, false, true, false, true});
  // A longer grace holds what a shorter one would have ended.
  readiness.SetGrace(std::chrono::hours(1));
  readiness.SetReadyWorkers(0);
  CHECK(readiness.is_ready());
  readiness.SetGrace(milliseconds(0));
  CHECK_FALSE(readiness.is_ready());
}

}  // namespace
}  // namespace mnemo::frontend
