#include <catch2/catch.hpp>
#include <csignal>
#include <random>
#include <set>
#include <thread>

#include "server/dispatch/dispatch_fixture.h"

namespace mnemo::dispatch {
namespace {

using absl::StatusCode;
using internal::v1::Submit;
using testing::Count;
using testing::RecordingSink;
using testing::World;

using State = WorkerSnapshot::State;
using Signal = std::tuple<int, uint64_t, int>;

TEST_CASE("restarts wait twice as long each time, up to the bound, and start anew after a stable time") {
  World world(1, true, [](CoreOptions& options) {
    options.timing.restart_backoff_ms = 100;
    options.timing.restart_backoff_max_ms = 400;
  });
  const auto delay_after_exit = [&] {
    world.core->OnExited(0, world.host.spawns.back().second, "exit code 1");
    const size_t spawns = world.host.spawns.size();
    const int64_t began = world.now_ms;
    while (world.host.spawns.size() == spawns) world.Advance(10);
    return world.now_ms - began;
  };
  CHECK(delay_after_exit() == 100);
  CHECK(delay_after_exit() == 200);
  CHECK(delay_after_exit() == 400);
  CHECK(delay_after_exit() == 400);
  world.lives[0] = world.host.spawns.back().second - 1;
  world.MakeReady(0);
  for (int i = 0; i < 20; ++i) {
    world.Advance(100);
    world.Heartbeat(0, static_cast<uint64_t>(i));
  }
  world.core->OnLinkClosed(0, world.lives[0], absl::UnavailableError("gone"));
  CHECK(delay_after_exit() == 100);
}

TEST_CASE("a child that cannot be started is tried again") {
  World world(1, true, [](CoreOptions& options) { options.timing.restart_backoff_ms = 50; });
  world.host.spawn_status = absl::NotFoundError("starting /nowhere: no such file");
  world.core->OnExited(0, 1, "exit code 1");
  world.Advance(60);
  CHECK(world.core->Workers()[0].state == State::kDown);
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("/nowhere"));
  world.host.spawn_status = absl::OkStatus();
  world.Advance(200);
  CHECK(world.core->Workers()[0].state == State::kStarting);
  CHECK(world.core->Workers()[0].pid > 0);
}

TEST_CASE("a link for which there is no thread is tried again with the next life") {
  World world(1, true, [](CoreOptions& options) { options.timing.restart_backoff_ms = 50; });
  world.host.lacks_threads = true;
  world.core->OnListening(0, 1);
  world.Advance(10);
  CHECK(world.core->Workers()[0].state == State::kDown);
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("no thread"));
  world.host.lacks_threads = false;
  world.core->OnExited(0, 1, "signal 9");
  world.Advance(200);
  const uint64_t life = world.host.spawns.back().second;
  REQUIRE(life == 2);
  world.core->OnListening(0, life);
  world.Advance(10);
  CHECK(world.host.connects.back() == std::pair<int, uint64_t>(0, life));
  CHECK(world.core->Workers()[0].state == State::kStarting);
}

TEST_CASE("a child that is never ready is killed and started again") {
  World world(1, true, [](CoreOptions& options) { options.timing.start_timeout_ms = 1000; });
  const bool listens = GENERATE(false, true);
  if (listens) world.core->OnListening(0, 1);
  world.Advance(990);
  CHECK(world.host.signals.empty());
  world.Advance(20);
  CHECK(world.host.signals == std::vector<Signal>{{0, 1, SIGKILL}});
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("not ready within 1000 ms"));
  CHECK(world.core->Workers()[0].state == State::kDown);
  world.Advance(500);
  CHECK(world.host.spawns.size() == 1);  // the old one is not gone yet
  if (listens) {
    CHECK(world.host.link(0)->close_called);
    world.core->OnLinkClosed(0, 1, absl::CancelledError());
  }
  world.core->OnExited(0, 1, "signal 9");
  world.Advance(20);
  CHECK(world.host.spawns.size() == 2);
}

TEST_CASE("no heartbeat means hung") {
  World world(1, true, [](CoreOptions& options) { options.timing.hang_timeout_ms = 300; });
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  for (uint64_t i = 1; i < 10; ++i) {
    world.Advance(100);
    world.Heartbeat(0, i);
  }
  CHECK(world.host.signals.empty());
  world.Advance(290);
  CHECK(world.host.signals.empty());
  world.Advance(20);
  CHECK(world.host.signals == std::vector<Signal>{{0, 1, SIGKILL}});
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("no heartbeat"));
  CHECK(world.host.link(0)->close_called);
}

TEST_CASE("counters go on over the processes of a worker, whenever they are looked at") {
  const bool are_children = GENERATE(true, false);
  World world(1, are_children);
  world.MakeReady(0);
  const auto count = [&](uint64_t steps, uint64_t tokens) {
    internal::v1::Heartbeat heartbeat;
    heartbeat.set_steps(steps);
    heartbeat.set_prefix_query_tokens(tokens);
    heartbeat.set_prefix_hit_tokens(tokens / 2);
    heartbeat.set_preemptions(steps);
    world.core->OnLinkHeartbeat(0, world.lives[0], heartbeat);
  };
  const auto counted = [&] { return world.core->Workers()[0].counters.prefix_query_tokens; };
  count(3, 40);
  count(5, 100);
  CHECK(counted() == 100);
  // Nobody looks before the next process has counted more than this one.
  world.Kill(0);
  CHECK(counted() == 100);
  world.Advance(1000);
  world.MakeReady(0);
  CHECK(counted() == 100);
  count(are_children ? 9 : 2, 140);
  CHECK(counted() == 240);
  CHECK(world.core->Workers()[0].counters.prefix_hit_tokens == 120);
  CHECK(world.core->Workers()[0].counters.preemptions == (are_children ? 14U : 7U));
  if (are_children) return;
  // The connection broke, and the process that others run is the same.
  world.Kill(0);
  world.Advance(1000);
  world.MakeReady(0);
  count(3, 150);
  CHECK(counted() == 250);
}

TEST_CASE("events show life as heartbeats do") {
  World world(1, true, [](CoreOptions& options) { options.timing.hang_timeout_ms = 300; });
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  const Submit submit = world.Submits(0).at(0);
  for (int i = 0; i < 10; ++i) {
    world.Advance(200);
    world.Send(0, World::Tokens(submit, i, 1));
  }
  CHECK(world.host.signals.empty());
  world.Advance(310);
  CHECK(world.host.signals.size() == 1);
}

TEST_CASE("a counter that stands still with work to do means hung, and without work does not") {
  World world(2, true, [](CoreOptions& options) { options.timing.hang_timeout_ms = 300; });
  world.MakeReady(0);
  world.MakeReady(1);
  const auto beat = [&](int ms) {
    for (int i = 0; i < ms / 50; ++i) {
      world.Advance(50);
      world.Heartbeat(0, 7);
      world.Heartbeat(1, 7);
    }
  };
  beat(2000);
  CHECK(world.host.signals.empty());
  auto [handle, sink] = world.Start();
  const Submit submit = world.Submits(0).at(0);
  beat(250);
  CHECK(world.host.signals.empty());
  beat(100);
  CHECK(world.host.signals == std::vector<Signal>{{0, 1, SIGKILL}});
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("no progress"));
  CHECK(world.Submits(1).size() == 1);
}

TEST_CASE("a worker that waits for a core is given time, but not for ever") {
  World world(1, true, [](CoreOptions& options) { options.timing.hang_timeout_ms = 400; });
  world.MakeReady(0);
  auto [handle, sink] = world.Start();
  const auto starve = [&](int ms, int share_percent) {
    for (int i = 0; i < ms / 20; ++i) {
      world.host.core_wait += std::chrono::microseconds(200 * share_percent);
      world.Advance(20);
      world.Heartbeat(0, 7);
    }
  };
  world.Heartbeat(0, 7);
  SECTION("starved, then itself again, then blocked") {
    starve(3000, 90);
    CHECK(world.host.signals.empty());
    world.Heartbeat(0, 8);
    world.core->Tick();
    for (int i = 0; i < 19; ++i) {
      world.Advance(20);
      world.Heartbeat(0, 8);
    }
    CHECK(world.host.signals.empty());
    world.Advance(40);
    CHECK(world.host.signals == std::vector<Signal>{{0, 1, SIGKILL}});
    CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("no progress with work to do for 400 ms"));
  }
  SECTION("waits for a small part of the time") {
    starve(380, 20);
    CHECK(world.host.signals.empty());
    starve(40, 20);
    CHECK(world.host.signals.size() == 1);
  }
  SECTION("waited only before the second half of the bound") {
    starve(180, 100);
    starve(200, 0);
    CHECK(world.host.signals.empty());
    starve(40, 0);
    CHECK(world.host.signals.size() == 1);
  }
  SECTION("starved for ever") {
    starve(3980, 100);
    CHECK(world.host.signals.empty());
    starve(40, 100);
    CHECK(world.host.signals.size() == 1);
    CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("for 4000 ms"));
  }
}

TEST_CASE("a server that slept itself blames no worker") {
  World world(1, true, [](CoreOptions& options) { options.timing.hang_timeout_ms = 300; });
  world.MakeReady(0);
  world.Advance(50);
  world.Heartbeat(0, 1);
  world.core->Tick();
  world.now_ms += 60000;
  world.core->Tick();
  CHECK(world.host.signals.empty());
  CHECK(world.core->Workers()[0].state == State::kReady);
  world.Advance(310);
  CHECK(world.host.signals.size() == 1);
}

TEST_CASE("a worker of another protocol or model is not used") {
  World world(1, false);
  internal::v1::Ready ready;
  ready.set_protocol(2);
  ready.set_model_id("m");
  world.core->OnLinkReady(0, 1, ready);
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("version 2") && Catch::Contains("version 1"));
  world.core->Tick();
  CHECK(world.host.link(0)->close_called);
  world.core->OnLinkClosed(0, 1, absl::CancelledError());
  world.Advance(200);
  REQUIRE(world.host.connects.size() == 2);
  ready.set_protocol(1);
  ready.set_model_id("another");
  world.core->OnLinkReady(0, 2, ready);
  CHECK_THAT(world.core->Workers()[0].detail, Catch::Contains("another"));
  CHECK(world.core->Workers()[0].state == State::kDown);
}

TEST_CASE("a worker that others run is connected to again, with back-off") {
  World world(1, false);
  CHECK(world.host.spawns.empty());
  CHECK(world.host.connects.size() == 1);
  world.core->OnLinkClosed(0, 1, absl::UnavailableError("connection refused"));
  world.Advance(90);
  CHECK(world.host.connects.size() == 1);
  world.Advance(20);
  CHECK(world.host.connects.size() == 2);
  CHECK(world.core->Workers()[0].restarts == 0);
}

TEST_CASE("readiness is told on the supervising thread, at once and at each change") {
  World world(2);
  std::vector<int> told;
  world.core->OnReadyChange([&](int ready) { told.push_back(ready); });
  world.core->Tick();
  world.MakeReady(0);
  world.MakeReady(1);
  world.Kill(0);
  world.core->Tick();
  CHECK(told == std::vector<int>{0, 1, 2, 1});
}

TEST_CASE("stop ends requests and children, the stubborn ones by force") {
  World world(3);
  world.MakeReady(0);
  world.MakeReady(1);
  auto [handle, sink] = world.Start();
  world.core->Stop();
  CHECK_FALSE(world.core->stopped());
  world.core->Tick();
  CHECK(sink->status().code() == StatusCode::kUnavailable);
  CHECK(sink->done());
  std::set<Signal> expected = {{0, 1, SIGTERM}, {1, 1, SIGTERM}, {2, 1, SIGTERM}};
  CHECK(std::set<Signal>(world.host.signals.begin(), world.host.signals.end()) == expected);
  CHECK(world.host.link(0)->close_called);
  for (const int worker : {0, 1}) {
    world.core->OnLinkClosed(worker, 1, absl::CancelledError());
    if (worker == 0) world.core->OnExited(worker, 1, "exit code 0");
  }
  world.core->OnExited(2, 1, "exit code 0");
  world.Advance(2900);
  CHECK_FALSE(world.core->stopped());
  CHECK(world.host.signals.size() == 3);
  world.Advance(200);
  CHECK(world.host.signals.back() == Signal{1, 1, SIGKILL});
  world.core->OnExited(1, 1, "signal 9");
  world.core->Tick();
  CHECK(world.core->stopped());
  CHECK(world.host.spawns.size() == 3);
}

TEST_CASE("ends of older lives are nobody's") {
  World world(1);
  world.MakeReady(0);
  world.Kill(0);
  world.Advance(150);
  world.MakeReady(0);
  world.core->OnLinkClosed(0, 1, absl::UnavailableError("late"));
  world.core->OnExited(0, 1, "late");
  world.core->OnListening(0, 1);
  world.core->OnLinkHeartbeat(0, 1, {});
  CHECK(world.core->Workers()[0].state == State::kReady);
}

// Workers that answer, die and come back, clients that cancel, all on threads of their own: every request
// ends once, and none hears an index twice or misses one.
TEST_CASE("a storm of deaths, cancels and tokens on many threads") {
  constexpr int kWorkers = 3, kClients = 3, kRequestsEach = 60, kTokens = 8;
  World world(kWorkers, false, [](CoreOptions& options) {
    options.timing.restart_backoff_ms = 1;
    options.timing.restart_backoff_max_ms = 1;
    options.now = std::chrono::steady_clock::now;
  });
  std::atomic<bool> stop{false};
  // The supervising thread keeps the fake links' numbers: a connect is a life.
  std::mutex lives_mutex;
  std::map<int, uint64_t> lives;
  const auto note_lives = [&] {
    std::lock_guard lock(lives_mutex);
    for (const auto& [worker, life] : world.host.connects) lives[worker] = life;
  };
  note_lives();
  std::thread supervisor([&] {
    while (!stop) {
      world.core->Tick();
      note_lives();
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (int w = 0; w < kWorkers; ++w) {
    threads.emplace_back([&, w] {
      std::mt19937 rng(static_cast<unsigned>(w));
      uint64_t ready_life = 0;
      std::map<uint64_t, std::pair<Submit, int>> running;
      while (!stop) {
        std::this_thread::yield();
        uint64_t life = 0;
        {
          std::lock_guard lock(lives_mutex);
          life = lives[w];
        }
        const auto link = world.host.link(w);
        if (life != ready_life) {
          ready_life = life;
          running.clear();
          internal::v1::Ready ready;
          ready.set_protocol(1);
          ready.set_model_id("m");
          ready.set_numerics_id("n");
          ready.set_max_running(4);
          ready.set_context_tokens(1000);
          world.core->OnLinkReady(w, life, ready);
        }
        for (const internal::v1::ToWorker& message : link->TakeSent()) {
          if (message.has_submit()) {
            running[message.submit().id()] = {message.submit(), message.submit().generated_size()};
          } else if (message.has_cancel()) {
            running.erase(message.cancel().id());
          }
        }
        internal::v1::Events events;
        for (auto it = running.begin(); it != running.end();) {
          auto& [submit, next] = it->second;
          const bool last = next + 1 >= kTokens;
          *events.add_events() = World::Tokens(submit, next++, 1, last);
          it = last ? running.erase(it) : std::next(it);
        }
        world.core->OnLinkEvents(w, life, &events);
        internal::v1::Heartbeat heartbeat;
        heartbeat.set_progress(rng());
        world.core->OnLinkHeartbeat(w, life, heartbeat);
        if (rng() % 200 == 0) world.core->OnLinkClosed(w, life, absl::UnavailableError("died"));
      }
    });
  }
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::mutex sinks_mutex;
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] {
      std::mt19937 rng(static_cast<unsigned>(100 + c));
      for (int i = 0; i < kRequestsEach; ++i) {
        Submit submit;
        submit.add_prompt(i);
        submit.set_max_tokens(kTokens);
        auto [handle, sink] = world.Start(submit, std::make_shared<RecordingSink>());
        {
          std::lock_guard lock(sinks_mutex);
          sinks.push_back(sink);
        }
        const int patience = static_cast<int>(rng() % 200);
        for (int turn = 0; !sink->done(); ++turn) {
          std::this_thread::yield();
          if (turn == patience && rng() % 3 == 0) handle->Cancel();
        }
      }
    });
  }
  for (size_t i = kWorkers; i < threads.size(); ++i) threads[i].join();
  stop = true;
  for (int i = 0; i < kWorkers; ++i) threads[static_cast<size_t>(i)].join();
  supervisor.join();
  int whole = 0;
  REQUIRE(sinks.size() == kClients * kRequestsEach);
  for (const auto& sink : sinks) {
    CHECK(sink->complaints().empty());
    const absl::StatusCode code = sink->status().code();
    CHECK((code == StatusCode::kOk || code == StatusCode::kCancelled || code == StatusCode::kInternal));
    if (code != StatusCode::kOk) continue;
    CHECK(sink->ids() == Count(kTokens));
    ++whole;
  }
  CHECK(whole > kClients * kRequestsEach / 4);
  for (const WorkerSnapshot& worker : world.core->Workers()) CHECK(worker.requests_running == 0);
}

}  // namespace
}  // namespace mnemo::dispatch
