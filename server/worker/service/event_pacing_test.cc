#include "server/worker/service/event_pacing.h"

#include <catch2/catch.hpp>

namespace mnemo::worker_service {
namespace {

using std::chrono::milliseconds;

const EventPacing::Time kStart{std::chrono::hours(1)};

TEST_CASE("events wait while the next step ends within the interval") {
  EventPacing pacing(milliseconds(20));
  CHECK_FALSE(pacing.MayWait(false, kStart));  // nothing was taken before
  pacing.Taken(kStart);
  CHECK(pacing.MayWait(false, kStart + milliseconds(8)));
  // A step of 4 ms: the next one ends at 16.
  CHECK(pacing.MayWait(false, kStart + milliseconds(12)));
  // The next step is believed to take 5 ms and would end at 22.
  CHECK_FALSE(pacing.MayWait(false, kStart + milliseconds(17)));
}

TEST_CASE("a step longer than half the interval keeps nothing back") {
  EventPacing pacing(milliseconds(20));
  pacing.Taken(kStart);
  CHECK_FALSE(pacing.MayWait(false, kStart));
  CHECK_FALSE(pacing.MayWait(false, kStart + milliseconds(11)));
}

TEST_CASE("an urgent event never waits, nor any without an interval") {
  EventPacing pacing(milliseconds(20));
  pacing.Taken(kStart);
  CHECK_FALSE(pacing.MayWait(true, kStart + milliseconds(1)));
  CHECK(pacing.MayWait(false, kStart + milliseconds(2)));
  EventPacing at_once;
  at_once.Taken(kStart);
  CHECK_FALSE(at_once.MayWait(false, kStart));
}

}  // namespace
}  // namespace mnemo::worker_service
