#include "devices/base/range.h"

#include <catch2/catch.hpp>
#include <cmath>

namespace mnemo {
namespace {

TEST_CASE("a byte range is within a size only as a whole") {
  CHECK(IsWithin(0, 0, 0));
  CHECK(IsWithin(0, 8, 8));
  CHECK(IsWithin(8, 0, 8));
  CHECK(IsWithin(3, 5, 8));
  CHECK_FALSE(IsWithin(3, 6, 8));
  CHECK_FALSE(IsWithin(9, 0, 8));
  CHECK_FALSE(IsWithin(0, 1, 0));
}

TEST_CASE("a byte range whose end overflows is outside") {
  CHECK_FALSE(IsWithin(1, UINT64_MAX, 8));
  CHECK_FALSE(IsWithin(UINT64_MAX, 1, 8));
  CHECK_FALSE(IsWithin(UINT64_MAX, 2, UINT64_MAX));
  CHECK(IsWithin(1, UINT64_MAX - 1, UINT64_MAX));
}

TEST_CASE("a value outside of its bounds is an error that names field and bounds") {
  CHECK(CheckRange("top_k", 0, 0, 5).ok());
  CHECK(CheckRange("top_k", 5, 0, 5).ok());
  const absl::Status high = CheckRange("top_k", 6, 0, 5);
  CHECK(high.code() == absl::StatusCode::kInvalidArgument);
  CHECK(high.message() == "top_k is 6; allowed: 0 to 5");
  CHECK(CheckRange("top_k", -1, 0, 5).message() == "top_k is -1; allowed: 0 to 5");
  CHECK(CheckRange("pages", int64_t{9}, 1, 8, ", the pool").message() ==
        "pages is 9; allowed: 1 to 8, the pool");
}

TEST_CASE("a field of a request outside of its bounds is an error in the public wording") {
  CHECK(CheckFieldRange("top_k", 0, 0, 5).ok());
  CHECK(CheckFieldRange("top_k", 5, 0, 5).ok());
  const absl::Status high = CheckFieldRange("top_k", 6, 0, 5);
  CHECK(high.code() == absl::StatusCode::kInvalidArgument);
  CHECK(high.message() == "top_k: 6 is out of range; allowed: [0, 5]");
  CHECK(CheckFieldRange("min_p", 1.5F, 0, 1).message() == "min_p: 1.5 is out of range; allowed: [0, 1]");
}

TEST_CASE("NaN is in no range") {
  CHECK(CheckRange("top_p", 0.5, 0, 1).ok());
  CHECK_FALSE(CheckRange("top_p", std::nan(""), 0, 1).ok());
  CHECK_FALSE(CheckFieldRange("top_p", std::nan(""), 0, 1).ok());
}

}  // namespace
}  // namespace mnemo
