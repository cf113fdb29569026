#include "server/frontend/out_of_memory.h"

#include <catch2/catch.hpp>
#include <string>

namespace mnemo::frontend {
namespace {

TEST_CASE("Work without memory fails with a status, other work is as it is") {
  CHECK(FailWithoutMemory([] { return absl::OkStatus(); }).ok());
  const absl::Status status = FailWithoutMemory([]() -> absl::Status { throw std::bad_alloc(); });
  CHECK(absl::IsResourceExhausted(status));
  CHECK(std::string(status.message()).find("out of memory") == 0);
  const absl::StatusOr<int> value = FailWithoutMemory([]() -> absl::StatusOr<int> { return 3; });
  CHECK(*value == 3);
  CHECK(absl::IsResourceExhausted(
      FailWithoutMemory([]() -> absl::StatusOr<int> { throw std::bad_alloc(); }).status()));
}

}  // namespace
}  // namespace mnemo::frontend
