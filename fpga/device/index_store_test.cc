#include "fpga/device/index_store.h"

#include <catch2/catch.hpp>

namespace mnemo::fpga {
namespace {

TEST_CASE("bounds of owners are told") {
  auto store = IndexStore::Create({.capacity_bytes = 1000, .max_owners = 2}).value();
  REQUIRE(store->AddOwner({.quota_bytes = 600, .max_indexes = 1}).ok());
  const auto second = store->AddOwner({.quota_bytes = 600, .max_indexes = 1});
  REQUIRE(second.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(std::string(second.status().message()) == "quota_bytes: 600 asked for, 400 of 1000 are left");
}

}  // namespace
}  // namespace mnemo::fpga
