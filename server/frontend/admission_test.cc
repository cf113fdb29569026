#include "server/frontend/admission.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <thread>
#include <vector>

namespace mnemo::frontend {
namespace {

using Catch::Matchers::Contains;
using Ticket = Admission::Ticket;

// Admits and starts what may run.
Admission::Outcome Enter(Admission* admission, int64_t tokens, std::function<void()> start,
                         int priority = 0) {
  Admission::Outcome outcome = admission->Admit(tokens, priority, std::move(start));
  admission->StartReady();
  return outcome;
}

TEST_CASE("requests run, then wait, then are refused") {
  Admission admission({.max_running = 2, .max_queued = 2, .max_tokens_in_flight = 1000}, nullptr);
  std::vector<int> started;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 4; ++i) {
    auto outcome = Enter(&admission, 10, [&started, i] { started.push_back(i); });
    REQUIRE(outcome.status.ok());
    tickets.push_back(std::move(outcome.ticket));
  }
  CHECK(started == std::vector<int>{0, 1});
  CHECK(admission.counts() == AdmissionCounts{2, 2, 40});
  const auto refused = Enter(&admission, 10, [] { FAIL("a refused request started"); });
  CHECK(refused.status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(refused.reason == RefusalReason::kQueueFull);
  CHECK_THAT(std::string(refused.status.message()), Contains("limits.max_queued"));
  CHECK_FALSE(refused.ticket.is_held());

  tickets[0].Release();
  CHECK(started == std::vector<int>{0, 1, 2});
  tickets[3].Release();  // while it waits
  tickets[1].Release();
  CHECK(started == std::vector<int>{0, 1, 2});
  tickets.clear();
  CHECK(admission.counts() == AdmissionCounts{});
}

TEST_CASE("lower priorities run first, then arrival decides") {
  Admission admission({.max_running = 1, .max_queued = 10, .max_tokens_in_flight = 1000}, nullptr);
  std::vector<int> started;
  Ticket first = Enter(&admission, 1, [] {}).ticket;
  std::vector<Ticket> tickets(4);
  const int priorities[] = {5, 0, -1, 0};
  for (int i = 0; i < 4; ++i) {
    tickets[static_cast<size_t>(i)] = Enter(
                                          &admission, 1,
                                          [&, i] {
                                            started.push_back(i);
                                            // Ends at once: the next one starts without recursion.
                                            tickets[static_cast<size_t>(i)].Release();
                                          },
                                          priorities[i])
                                          .ticket;
  }
  first.Release();
  CHECK(started == std::vector<int>{2, 1, 3, 0});
  CHECK(admission.counts() == AdmissionCounts{});
}

TEST_CASE("tokens in flight are bounded") {
  Admission admission({.max_running = 8, .max_queued = 8, .max_tokens_in_flight = 100}, nullptr);
  const auto too_many = Enter(&admission, 101, [] {});
  CHECK(too_many.reason == RefusalReason::kTooManyTokens);
  CHECK(too_many.status.code() == absl::StatusCode::kResourceExhausted);
  Ticket held = Enter(&admission, 60, [] {}).ticket;
  const auto second = Enter(&admission, 41, [] {});
  CHECK(second.reason == RefusalReason::kTokensInFlight);
  CHECK_THAT(std::string(second.status.message()), Contains("limits.max_tokens_in_flight"));
  CHECK(Enter(&admission, 40, [] {}).status.ok());
  held.Release();
  CHECK(Enter(&admission, 100, [] {}).status.ok());
}

TEST_CASE("draining refuses new requests and lets queued ones run") {
  Admission admission({.max_running = 1, .max_queued = 8, .max_tokens_in_flight = 100}, nullptr);
  bool started = false;
  Ticket running = Enter(&admission, 1, [] {}).ticket;
  Ticket queued = Enter(&admission, 1, [&] { started = true; }).ticket;
  admission.SetDraining(true);
  const auto refused = Enter(&admission, 1, [] {});
  CHECK(refused.status.code() == absl::StatusCode::kUnavailable);
  CHECK(refused.reason == RefusalReason::kDraining);
  CHECK_THAT(std::string(refused.status.message()), Contains("drain"));
  running.Release();
  CHECK(started);
  admission.SetDraining(false);
  CHECK(Enter(&admission, 1, [] {}).status.ok());
}

TEST_CASE("raised limits start what waits") {
  Admission admission({.max_running = 1, .max_queued = 8, .max_tokens_in_flight = 100}, nullptr);
  int started = 0;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 3; ++i) tickets.push_back(Enter(&admission, 1, [&] { ++started; }).ticket);
  CHECK(started == 1);
  admission.SetLimits({.max_running = 2, .max_queued = 8, .max_tokens_in_flight = 100});
  CHECK(started == 2);
}

TEST_CASE("counts return to nothing after requests from many threads") {
  std::atomic<int> most{0};
  Admission admission({.max_running = 3, .max_queued = 5, .max_tokens_in_flight = 200},
                      [&](const AdmissionCounts& counts) { most = std::max(most.load(), counts.running); });
  std::atomic<int> started{0}, admitted{0}, abandoned{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        auto has_started = std::make_shared<std::atomic<bool>>(false);
        auto outcome = Enter(&admission, 1 + static_cast<int64_t>(random() % 40), [&started, has_started] {
          ++started;
          *has_started = true;
        });
        if (!outcome.status.ok()) continue;
        ++admitted;
        if (random() % 4 != 0) {
          for (int spins = 0; !*has_started && spins < 1000; ++spins) std::this_thread::yield();
        }
        outcome.ticket.Release();
        if (!*has_started) ++abandoned;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(admission.counts() == AdmissionCounts{});
  CHECK(most <= 3);
  CHECK(started > 0);
  CHECK(started + abandoned >= admitted);
}

}  // namespace
}  // namespace mnemo::frontend
