#include "server/dispatch/router.h"

#include <catch2/catch.hpp>
#include <vector>

namespace mnemo::dispatch {
namespace {

RouteCandidate Worker(int64_t outstanding_tokens, int outstanding_requests = 0) {
  return {.ready = true,
          .numerics_id = "n1",
          .context_tokens = 1000,
          .outstanding_requests = outstanding_requests,
          .max_requests = 8,
          .outstanding_tokens = outstanding_tokens};
}

const RouteQuery kQuery = {.prompt_tokens = 100, .sequence_tokens = 200};

TEST_CASE("the worker with the least outstanding tokens is taken") {
  std::vector<RouteCandidate> workers = {Worker(300), Worker(200), Worker(250)};
  CHECK(Route(workers, kQuery) == 1u);
}

TEST_CASE("equal costs go to fewer requests, then to the lower index") {
  std::vector<RouteCandidate> workers = {Worker(200, 3), Worker(200, 2), Worker(200, 2)};
  CHECK(Route(workers, kQuery) == 1u);
}

TEST_CASE("only ready workers with room are taken") {
  std::vector<RouteCandidate> workers = {Worker(0), Worker(10, 8), Worker(900)};
  workers[0].ready = false;
  CHECK(Route(workers, kQuery) == 2u);
  workers[2].outstanding_requests = 8;
  CHECK(Route(workers, kQuery) == std::nullopt);
  CHECK(IsEligible(workers[2], kQuery));
  CHECK_FALSE(IsEligible(workers[0], kQuery));
  CHECK(Route({}, kQuery) == std::nullopt);
}

TEST_CASE("a replay goes on only under the same numerics") {
  std::vector<RouteCandidate> workers = {Worker(0), Worker(500)};
  workers[0].numerics_id = "n2";
  RouteQuery query = kQuery;
  query.numerics_id = "n1";
  CHECK(Route(workers, query) == 1u);
  query.numerics_id = "n3";
  CHECK(Route(workers, query) == std::nullopt);
}

TEST_CASE("a sequence longer than a worker's context is not sent there") {
  std::vector<RouteCandidate> workers = {Worker(0), Worker(500)};
  workers[0].context_tokens = 199;
  CHECK(Route(workers, kQuery) == 1u);
}

TEST_CASE("a cached prefix is worth as many tokens as it saves") {
  std::vector<RouteCandidate> workers = {Worker(0), Worker(63)};
  workers[1].prefix_tokens = 64;
  CHECK(Route(workers, kQuery) == 1u);
  workers[1].outstanding_tokens = 65;
  CHECK(Route(workers, kQuery) == 0u);
  // A prefix longer than the prompt saves no more than the prompt.
  workers[1].prefix_tokens = 1000;
  workers[1].outstanding_tokens = 101;
  CHECK(Route(workers, kQuery) == 0u);
}

TEST_CASE("a session stays where it is until the load differs by more than its prompt") {
  std::vector<RouteCandidate> workers = {Worker(0), Worker(99)};
  workers[1].holds_session = true;
  CHECK(Route(workers, kQuery) == 1u);
  workers[1].outstanding_tokens = 101;
  CHECK(Route(workers, kQuery) == 0u);
}

}  // namespace
}  // namespace mnemo::dispatch
