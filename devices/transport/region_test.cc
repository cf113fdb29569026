#include "devices/transport/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <utility>

#include "devices/base/mapping.h"

namespace mnemo::transport {
namespace {

UniqueFd Duplicate(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

TEST_CASE("a region is seen through a second mapping and outlives the first") {
  absl::StatusOr<Region> first = Region::Create("tester", 10000);
  REQUIRE(first.ok());
  CHECK(first->length_bytes() >= 10000);
  CHECK(first->owner() == "tester");
  absl::StatusOr<Region> second =
      Region::Map(Duplicate(first->fd()), "tester", first->length_bytes(), first->key());
  REQUIRE(second.ok());
  CHECK(second->key() == first->key());
  CHECK(second->bytes().data() != first->bytes().data());
  first->bytes()[9999] = std::byte{42};
  CHECK(second->bytes()[9999] == std::byte{42});
  const Region moved = std::move(*first);
  CHECK(first->bytes().empty());
  { const Region ended = std::move(*second); }
  CHECK(moved.bytes()[9999] == std::byte{42});
}

TEST_CASE("a region's memory can be neither shrunk nor grown, and its seals stay") {
  const absl::StatusOr<Region> region = Region::Create("tester", 3 << 20);
  REQUIRE(region.ok());
  CHECK(::ftruncate(region->fd(), 4096) != 0);
  CHECK(::ftruncate(region->fd(), 64 << 20) != 0);
  CHECK(::fcntl(region->fd(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
}

TEST_CASE("a descriptor of foreign memory is checked before it is mapped") {
  absl::StatusOr<UniqueFd> loose = CreateMemfd("loose", 8192);
  REQUIRE(loose.ok());
  CHECK(Region::Map(Duplicate(loose->get()), "tester", 8192, 1).status().code() ==
        absl::StatusCode::kInvalidArgument);
  REQUIRE(::fcntl(loose->get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  CHECK(Region::Map(Duplicate(loose->get()), "tester", 8192, 1).ok());
  CHECK(Region::Map(Duplicate(loose->get()), "tester", 8193, 1).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(Region::Map(Duplicate(STDIN_FILENO), "tester", 1, 1).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(Region::Create("tester", 0).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mnemo::transport
