#include "server/memory/placement.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "server/memory/step_stats.h"

namespace mnemo::memory {
namespace {

using P = AttentionSettings::Placement;

TEST_CASE("a request that names its placement gets it, or is refused before it has begun") {
  for (const bool any_in_service : {false, true}) {
    for (const bool has_service : {false, true}) {
      const PlacementRules rules = {.any_in_service = any_in_service, .has_service = has_service};
      CAPTURE(any_in_service, has_service);
      CHECK_FALSE(ChoosePlacement(P::kInline, rules, false).in_service);
      CHECK_FALSE(ChoosePlacement(P::kInline, rules, false).insists);
      CHECK(ChoosePlacement(P::kMemoryService, rules, false).in_service);
      CHECK(ChoosePlacement(P::kMemoryService, rules, false).insists);
      CHECK(ChoosePlacement(P::kMemoryService, rules, true).in_service);
      CHECK_FALSE(ChoosePlacement(P::kMemoryService, rules, true).insists);
    }
  }
}

TEST_CASE("a request that leaves the choice goes where the worker's rules say, and is never refused for it") {
  for (const bool begun : {false, true}) {
    const auto choose = [begun](bool any_in_service, bool has_service) {
      const PlacementRules rules = {.any_in_service = any_in_service, .has_service = has_service};
      const PlacementChoice choice = ChoosePlacement(P::kAny, rules, begun);
      CHECK_FALSE(choice.insists);
      return choice.in_service;
    };
    CHECK(choose(true, true));
    CHECK_FALSE(choose(true, false));
    CHECK_FALSE(choose(false, true));
    CHECK_FALSE(choose(false, false));
  }
}

TEST_CASE("a fallback is counted by what the service said") {
  CHECK(FallbackReason(absl::ResourceExhaustedError("")) == "service_full");
  CHECK(FallbackReason(absl::FailedPreconditionError("")) == "service_incapable");
  CHECK(FallbackReason(absl::UnavailableError("")) == "service_absent");
  for (const auto& refusal :
       {absl::ResourceExhaustedError(""), absl::FailedPreconditionError(""), absl::UnavailableError("")})
    CHECK(std::ranges::count(kFallbackReasons, FallbackReason(refusal)) == 1);
}

}  // namespace
}  // namespace mnemo::memory
