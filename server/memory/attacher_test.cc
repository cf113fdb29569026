#include "server/memory/attacher.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <memory>

#include "tests/support/eventually.h"

namespace mnemo::memory {
namespace {

TEST_CASE("why there is no attachment: the newest reason") {
  std::promise<void> go_on;
  std::shared_future<void> gone_on = go_on.get_future().share();
  std::atomic<int> calls = 0;
  Attacher attacher([&]() -> absl::StatusOr<std::unique_ptr<MemoryClient>> {
    const int call = calls++;
    if (call == 0) return Unavailable("nobody listens");
    if (call > 1) gone_on.wait();
    return nullptr;
  });
  CHECK(mnemo::testing::Eventually([&] { return attacher.why() == "nobody listens"; }));
  CHECK(mnemo::testing::Eventually([&] { return calls == 2; }));
  attacher.Want("it went");
  CHECK(attacher.why() == "it went");
  go_on.set_value();
}

}  // namespace
}  // namespace mnemo::memory
