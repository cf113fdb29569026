#include "server/worker/mailbox.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace mnemo::worker {
namespace {

using std::chrono::milliseconds;

std::unique_ptr<Request> Make(Mailbox* mailbox, uint64_t id, uint32_t attempt = 0) {
  EngineRequest spec;
  spec.id = id;
  spec.attempt = attempt;
  spec.prompt = {1};
  return std::make_unique<Request>(std::move(spec), mailbox->NextArrival(), Request::Clock::time_point{});
}

// Sessions "a", "b" and "c", which keep a page each.
struct Sessions {
  Sessions() : cache(4, 1), table(&cache, 4) {
    const std::vector<int32_t> ids(devices::kPageTokens, 1);
    const int page = cache.Publish(cache.Allocate(), -1, PrefixCache::PageIds(ids.data(), ids.size()));
    for (const char* name : {"a", "b", "c"}) table.Keep(name, page);
  }
  PrefixCache cache;
  SessionTable table;
};

}  // namespace

TEST_CASE("requests arrive once, in the order in which they were posted") {
  Mailbox mailbox(2, 1, 4);
  Sessions sessions;
  std::vector<Request*> arrived;
  REQUIRE(mailbox.Post(Make(&mailbox, 7)).ok());
  REQUIRE(mailbox.Post(Make(&mailbox, 5)).ok());
  CHECK(mailbox.Wait(milliseconds(0)));
  CHECK(mailbox.Take(&arrived, &sessions.table));
  REQUIRE(arrived.size() == 2);
  CHECK(arrived[0]->spec.id == 7);
  CHECK(arrived[0]->arrival == 0);
  CHECK(arrived[1]->arrival == 1);
  arrived.clear();
  CHECK_FALSE(mailbox.Wait(milliseconds(0)));
  CHECK(mailbox.Take(&arrived, &sessions.table));
  CHECK(arrived.empty());
  CHECK(sessions.table.size() == 3);
}

TEST_CASE("a name belongs to one live request, and their number has a bound") {
  Mailbox mailbox(2, 1, 4);
  Sessions sessions;
  REQUIRE(mailbox.Post(Make(&mailbox, 1)).ok());
  CHECK(mailbox.Post(Make(&mailbox, 1)).ToString() ==
        "INVALID_ARGUMENT: id 1 with attempt 0 is in use by a live request");
  REQUIRE(mailbox.Post(Make(&mailbox, 1, /*attempt=*/1)).ok());
  REQUIRE(mailbox.Post(Make(&mailbox, 2)).ok());
  CHECK(mailbox.Post(Make(&mailbox, 3)).ToString() ==
        "RESOURCE_EXHAUSTED: 3 requests are running or waiting; allowed: at most 3 (max_running 2 and "
        "max_waiting 1)");
  std::vector<Request*> arrived;
  mailbox.Take(&arrived, &sessions.table);
  mailbox.Destroy(arrived[0]);
  CHECK(mailbox.Post(Make(&mailbox, 1)).ok());
}

TEST_CASE("a cancel marks the live request of that name alone") {
  Mailbox mailbox(2, 1, 4);
  Sessions sessions;
  std::vector<Request*> arrived;
  REQUIRE(mailbox.Post(Make(&mailbox, 1)).ok());
  REQUIRE(mailbox.Post(Make(&mailbox, 2)).ok());
  mailbox.Take(&arrived, &sessions.table);
  mailbox.Cancel(1, 1);
  mailbox.Cancel(3, 0);
  CHECK_FALSE(mailbox.TakeCancelled());
  mailbox.Cancel(2, 0);
  CHECK(mailbox.TakeCancelled());
  CHECK_FALSE(mailbox.TakeCancelled());
  CHECK_FALSE(arrived[0]->cancelled);
  CHECK(arrived[1]->cancelled);
}

TEST_CASE("an ended session is forgotten; more of them than the bound end all") {
  Mailbox mailbox(2, 1, 2);
  Sessions sessions;
  std::vector<Request*> arrived;
  mailbox.EndSession("a");
  mailbox.EndSession("x");
  CHECK(mailbox.Wait(milliseconds(0)));
  mailbox.Take(&arrived, &sessions.table);
  CHECK(sessions.table.size() == 2);
  for (const char* name : {"x", "y", "z"}) mailbox.EndSession(name);
  mailbox.Take(&arrived, &sessions.table);
  CHECK(sessions.table.size() == 0);
}

TEST_CASE("a stopped mailbox refuses requests, wakes the engine and still gives what was posted") {
  Mailbox mailbox(2, 1, 4);
  Sessions sessions;
  std::vector<Request*> arrived;
  REQUIRE(mailbox.Post(Make(&mailbox, 1)).ok());
  mailbox.Take(&arrived, &sessions.table);
  arrived.clear();
  std::thread stopper([&] { mailbox.Stop(); });
  CHECK(mailbox.Wait(std::chrono::minutes(1)));
  stopper.join();
  CHECK(mailbox.Post(Make(&mailbox, 2)).code() == absl::StatusCode::kCancelled);
  CHECK_FALSE(mailbox.Take(&arrived, &sessions.table));
  CHECK(arrived.empty());
}

}  // namespace mnemo::worker
