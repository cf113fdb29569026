#include "devices/base/address.h"

#include <catch2/catch.hpp>

namespace mnemo {
namespace {

TEST_CASE("only an address of a Unix socket has a path") {
  CHECK(UnixSocketPath("unix:/run/a.sock") == "/run/a.sock");
  CHECK(UnixSocketPath("unix:unix:a") == "unix:a");
  CHECK(UnixSocketPath("unix:") == "");
  CHECK(UnixSocketPath("localhost:80") == std::nullopt);
  CHECK(UnixSocketPath("ucx:localhost:80") == std::nullopt);
  CHECK(UnixSocketPath("unix") == std::nullopt);
  CHECK(UnixSocketPath(" unix:/run/a.sock") == std::nullopt);
  CHECK(UnixSocketPath("") == std::nullopt);
}

}  // namespace
}  // namespace mnemo
