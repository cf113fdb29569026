#include "client/bench/power_fit.h"

#include <catch2/catch.hpp>

namespace mnemo::bench {
namespace {

TEST_CASE("a line is fitted exactly, and its error over other phases is the mean of theirs") {
  const PowerPhase line[] = {{0.1, 14}, {0.5, 30}, {0.9, 46}};
  const absl::StatusOr<PowerFit> fit = FitPower(line);
  REQUIRE(fit.ok());
  CHECK(fit->idle_watts == Approx(10));
  CHECK(fit->busy_watts == Approx(50));
  const PowerPhase others[] = {{0.25, 20}, {0.5, 40}};
  CHECK(MeanRelativeError(*fit, others) == Approx((0 + 0.25) / 2));
}

TEST_CASE("noise is fitted by least squares") {
  // numpy.polyfit([0.05, 0.3, 0.62, 0.98, 0.5], [11.2, 20.1, 36.5, 47.9, 30.3], 1)
  // gives 40.61626952, 9.29802794.
  const PowerPhase noisy[] = {{0.05, 11.2}, {0.3, 20.1}, {0.62, 36.5}, {0.98, 47.9}, {0.5, 30.3}};
  const absl::StatusOr<PowerFit> fit = FitPower(noisy);
  REQUIRE(fit.ok());
  CHECK(fit->idle_watts == Approx(9.29802794).epsilon(1e-8));
  CHECK(fit->busy_watts - fit->idle_watts == Approx(40.61626952).epsilon(1e-8));
}

TEST_CASE("phases that tell nothing are refused") {
  const PowerPhase one[] = {{0.5, 30}};
  CHECK(absl::IsFailedPrecondition(FitPower(one).status()));
  const PowerPhase alike[] = {{0.9, 40}, {0.95, 41}, {1.0, 42}};
  CHECK(FitPower(alike).status().message().find("to 90 % without load and to 100 % with it") !=
        std::string_view::npos);
  const PowerPhase falling[] = {{0.1, 40}, {0.9, 20}};
  CHECK(absl::IsFailedPrecondition(FitPower(falling).status()));
  const PowerPhase below_zero[] = {{0.5, 1}, {1.0, 40}};
  CHECK(absl::IsFailedPrecondition(FitPower(below_zero).status()));
}

}  // namespace
}  // namespace mnemo::bench
