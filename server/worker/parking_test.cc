#include "server/worker/parking.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mnemo::worker {
namespace {

using memory::AttentionSettings;
using std::chrono::milliseconds;
using Clock = Request::Clock;
using Requests = std::vector<Request*>;

// A request of 200 positions, more than the pool of two pages, unless told otherwise.
std::unique_ptr<Request> Make(AttentionSettings::Placement placement, int prompt_tokens = 200,
                              bool begun = false) {
  EngineRequest spec;
  spec.prompt.assign(static_cast<size_t>(prompt_tokens), 1);
  spec.max_tokens = 1;
  spec.attention.method = AttentionSettings::Method::kTokenTopk;
  spec.attention.placement = placement;
  spec.begun = begun;
  return std::make_unique<Request>(std::move(spec), 0, Clock::time_point{});
}

constexpr ParkingOptions kOptions{.service_wait = milliseconds(1000), .kv_pages = 2, .max_live = 8};
constexpr Clock::time_point kStart{std::chrono::hours(1)};

struct Sorted {
  Requests ready;
  Requests expired;
};

Sorted SortAt(Parking* parking, milliseconds after, bool service_attached) {
  Sorted sorted;
  parking->Sort(kStart + after, service_attached, &sorted.ready, &sorted.expired);
  return sorted;
}

Requests Parked(const Parking& parking) { return {parking.requests().begin(), parking.requests().end()}; }

}  // namespace

TEST_CASE("requests leave as soon as there is a service, in the order in which they were parked") {
  const auto first = Make(AttentionSettings::Placement::kMemoryService);
  const auto second = Make(AttentionSettings::Placement::kMemoryService);
  Parking parking(kOptions);
  CHECK(parking.empty());
  parking.Park(second.get(), kStart, false);
  parking.Park(first.get(), kStart, false);
  CHECK(SortAt(&parking, milliseconds(999), false).ready.empty());
  CHECK(Parked(parking) == Requests{second.get(), first.get()});
  const Sorted sorted = SortAt(&parking, milliseconds(999), true);
  CHECK(sorted.ready == Requests{second.get(), first.get()});
  CHECK(sorted.expired.empty());
  CHECK(parking.empty());
}

TEST_CASE("a full service is asked again after an interval, not before") {
  const auto request = Make(AttentionSettings::Placement::kMemoryService);
  Parking parking(kOptions);
  parking.Park(request.get(), kStart, true);
  CHECK(SortAt(&parking, Parking::kRetryInterval - milliseconds(1), true).ready.empty());
  CHECK(SortAt(&parking, Parking::kRetryInterval, true).ready == Requests{request.get()});
}

TEST_CASE("a request that has waited for the bound expires, and stays until it is removed") {
  const auto request = Make(AttentionSettings::Placement::kMemoryService);
  Parking parking(kOptions);
  parking.Park(request.get(), kStart, false);
  CHECK(SortAt(&parking, milliseconds(999), false).expired.empty());
  const Sorted sorted = SortAt(&parking, milliseconds(1000), false);
  CHECK(sorted.ready.empty());
  CHECK(sorted.expired == Requests{request.get()});
  CHECK(Parked(parking) == Requests{request.get()});
  CHECK(parking.Remove(request.get()));
  CHECK_FALSE(parking.Remove(request.get()));
  CHECK(parking.empty());
  CHECK(parking.Expired().code() == absl::StatusCode::kUnavailable);
  CHECK(std::string(parking.Expired().message()) ==
        "memory.kv_wait_ms: for 1000 ms there was no memory service with room for K and V");
}

TEST_CASE("the wait counts from the first time that a request was parked until it has a place again") {
  const auto request = Make(AttentionSettings::Placement::kMemoryService);
  Parking parking(kOptions);
  parking.Park(request.get(), kStart, false);
  REQUIRE(SortAt(&parking, milliseconds(600), true).ready.size() == 1);
  SECTION("the service was full") {
    parking.Park(request.get(), kStart + milliseconds(600), true);
    CHECK(SortAt(&parking, milliseconds(1000), false).expired == Requests{request.get()});
  }
  SECTION("it had a place in between") {
    Parking::Settle(request.get());
    parking.Park(request.get(), kStart + milliseconds(600), false);
    CHECK(SortAt(&parking, milliseconds(1599), false).expired.empty());
    CHECK(SortAt(&parking, milliseconds(1600), false).expired == Requests{request.get()});
  }
}

TEST_CASE("the worker keeps what does not insist on the service and fits its pool") {
  const Parking parking(kOptions);
  using Placement = AttentionSettings::Placement;
  CHECK(parking.MayStay(*Make(Placement::kAny, 128)));
  CHECK_FALSE(parking.MayStay(*Make(Placement::kAny, 129)));
  CHECK_FALSE(parking.MayStay(*Make(Placement::kMemoryService, 128)));
  CHECK(parking.MayStay(*Make(Placement::kMemoryService, 128, /*begun=*/true)));
  CHECK_FALSE(parking.MayStay(*Make(Placement::kMemoryService, 129, /*begun=*/true)));
  const auto told = Make(Placement::kMemoryService, 128);
  told->report.begun = true;
  CHECK(parking.MayStay(*told));
}

TEST_CASE("a parked request that may stay leaves without a service, others do not") {
  const auto may_stay = Make(AttentionSettings::Placement::kAny, 100);
  const auto too_long = Make(AttentionSettings::Placement::kAny, 200);
  Parking parking(kOptions);
  parking.Park(too_long.get(), kStart, false);
  parking.Park(may_stay.get(), kStart, true);
  CHECK(SortAt(&parking, milliseconds(0), false).ready == Requests{may_stay.get()});
  CHECK(Parked(parking) == Requests{too_long.get()});
}

}  // namespace mnemo::worker
