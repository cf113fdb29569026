// The supervision of memory services, with processes that stand in for them.
#include "server/dispatch/memory_supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <thread>

namespace mnemo::dispatch {
namespace {

using std::chrono::milliseconds;
using State = WorkerSnapshot::State;

constexpr auto kPatience = std::chrono::seconds(60);

class Sockets {
 public:
  Sockets() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mnemo-supervisor-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Sockets() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

MemorySupervisor::Options MakeOptions(const Sockets& sockets, int count,
                                      const std::vector<std::string>& more = {}) {
  MemorySupervisor::Options options;
  options.program = MNEMO_FAKE_MEMORY_SERVICE;
  options.timing.health_interval_ms = 20;
  options.timing.hang_timeout_ms = 500;
  options.timing.restart_backoff_ms = 20;
  options.timing.restart_backoff_max_ms = 100;
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("memory{}", i);
    MemorySupervisor::Service service{.name = name,
                                      .data_socket = sockets / name,
                                      .control_address = "unix:" + sockets / (name + "-control"),
                                      .arguments = {}};
    service.arguments = {service.control_address};
    service.arguments.insert(service.arguments.end(), more.begin(), more.end());
    options.services.push_back(std::move(service));
  }
  return options;
}

std::unique_ptr<MemorySupervisor> Start(MemorySupervisor::Options options) {
  auto supervisor = MemorySupervisor::Start(std::move(options));
  REQUIRE(supervisor.ok());
  return *std::move(supervisor);
}

// The snapshot of service `index` once `condition` holds for it.
template <typename Condition>
MemorySnapshot Await(const MemorySupervisor& supervisor, size_t index, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    MemorySnapshot snapshot = supervisor.Snapshots().at(index);
    if (condition(snapshot)) return snapshot;
    INFO(snapshot.detail);
    REQUIRE(std::chrono::steady_clock::now() < end);
    std::this_thread::sleep_for(milliseconds(5));
  }
}

bool IsReady(const MemorySnapshot& snapshot) { return snapshot.state == State::kReady; }
bool IsGone(int pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

}  // namespace

TEST_CASE("services start, show their figures, and end with the supervisor") {
  const Sockets sockets;
  std::vector<int> pids;
  {
    const auto supervisor = Start(MakeOptions(sockets, 2));
    for (size_t i = 0; i < 2; ++i) {
      const MemorySnapshot snapshot = Await(*supervisor, i, IsReady);
      CHECK(snapshot.name == fmt::format("memory{}", i));
      CHECK(snapshot.address == "unix:" + sockets / snapshot.name);
      CHECK(snapshot.stats.pid() == snapshot.pid);
      CHECK(snapshot.stats.indexes() == 5);
      CHECK(snapshot.restarts == 0);
      CHECK(snapshot.detail.empty());
      pids.push_back(snapshot.pid);
    }
  }
  for (const int pid : pids) CHECK(IsGone(pid));
}

TEST_CASE("a service that dies is started again, and its neighbour goes on") {
  const Sockets sockets;
  const auto supervisor = Start(MakeOptions(sockets, 2));
  const int pid = Await(*supervisor, 0, IsReady).pid;
  const int neighbour = Await(*supervisor, 1, IsReady).pid;
  for (int round = 1; round <= 3; ++round) {
    CAPTURE(round);
    ::kill(Await(*supervisor, 0, IsReady).pid, SIGKILL);
    const MemorySnapshot again =
        Await(*supervisor, 0, [&](const MemorySnapshot& s) { return s.restarts == round && IsReady(s); });
    CHECK(again.pid != pid);
  }
  CHECK(supervisor->Snapshots()[1].pid == neighbour);
}

TEST_CASE("a service that hangs is killed and started again") {
  const Sockets sockets;
  const auto supervisor = Start(MakeOptions(sockets, 1));
  const int pid = Await(*supervisor, 0, IsReady).pid;
  ::kill(pid, SIGSTOP);
  const MemorySnapshot down =
      Await(*supervisor, 0, [](const MemorySnapshot& s) { return s.restarts == 1 || !IsReady(s); });
  if (down.restarts == 0) CHECK(down.detail == "no answer for 500 ms");
  Await(*supervisor, 0, [](const MemorySnapshot& s) { return s.restarts == 1 && IsReady(s); });
  CHECK(IsGone(pid));
}

TEST_CASE("a service that never answers, or cannot be started, is down and says why") {
  const Sockets sockets;
  std::string detail;
  MemorySupervisor::Options options = MakeOptions(sockets, 1);
  SECTION("silent") {
    options = MakeOptions(sockets, 1, {"silent"});
    options.timing.start_timeout_ms = 200;
    detail = "not ready within 200 ms";
  }
  SECTION("absent") {
    options.program = sockets / "absent";
    detail = "No such file";
  }
  SECTION("ends by itself") {
    options.program = "/bin/false";
    detail = "exit code 1";
  }
  const auto supervisor = Start(std::move(options));
  const MemorySnapshot down = Await(
      *supervisor, 0, [](const MemorySnapshot& s) { return s.restarts >= 2 && s.state == State::kDown; });
  CHECK_THAT(down.detail, Catch::Contains(detail));
}

}  // namespace mnemo::dispatch
