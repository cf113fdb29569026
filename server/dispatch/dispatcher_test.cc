// The dispatcher with real mnemo-worker processes.
#include "server/dispatch/dispatcher.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "server/dispatch/child_process.h"
#include "server/worker/service/worker_options.h"
#include "tests/support/eventually.h"
#include "tests/support/submit.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_model.h"

namespace mnemo::dispatch {
namespace {

namespace fs = std::filesystem;
using mnemo::testing::Eventually;
using mnemo::testing::kPatience;
using mnemo::testing::MakeSubmit;
using std::chrono::milliseconds;
using State = WorkerSnapshot::State;

class WaitingSink final : public DispatchSink {
 public:
  void OnEvent(const internal::v1::Event& event) override {
    std::lock_guard lock(mutex_);
    if (event.token_ids_size() > 0 && event.first_index() != static_cast<int>(ids_.size())) in_order_ = false;
    ids_.insert(ids_.end(), event.token_ids().begin(), event.token_ids().end());
    changed_.notify_all();
  }
  void OnDone(const absl::Status& status, int replays) override {
    std::lock_guard lock(mutex_);
    done_ = true;
    status_ = status;
    replays_ = replays;
    changed_.notify_all();
  }
  bool WaitForTokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return ids_.size() >= count; });
  }
  bool WaitForDone() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return done_; });
  }
  // Once it is done.
  const std::vector<int>& ids() const { return ids_; }
  const absl::Status& status() const { return status_; }
  int replays() const { return replays_; }
  bool in_order() const { return in_order_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> ids_;
  bool in_order_ = true, done_ = false;
  absl::Status status_;
  int replays_ = 0;
};

struct Folder {
  std::string Script(const std::string& text) const {
    const std::string path = folder.Write("program", text);
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
  fs::path sockets() const { return folder.path() / "run"; }

  const mnemo::testing::TempFolder folder;
  const std::string model = mnemo::testing::WriteTinyModel({.context_tokens = 8192}, folder.path());
};

config::Config MakeConfig(const Folder& folder, int workers) {
  config::Config config;
  config.model.path = folder.model;
  config.device = "reference";
  config.cpu.threads = workers;
  config.workers.count = workers;
  config.workers.binary = MNEMO_WORKER_PROGRAM;
  config.workers.runtime_dir = folder.sockets().string();
  config.workers.heartbeat_interval_ms = 50;
  config.memory.services = 0;
  config.log.level = "warn";
  return config;
}

std::unique_ptr<Dispatcher> MakeDispatcher(const config::Config& config) {
  absl::StatusOr<std::unique_ptr<Dispatcher>> dispatcher =
      CreateDispatcher({.config = config, .version = "test"});
  INFO(dispatcher.status());
  REQUIRE(dispatcher.ok());
  return *std::move(dispatcher);
}

bool AllReady(const Dispatcher& dispatcher) {
  const std::vector<WorkerSnapshot> workers = dispatcher.Workers();
  return std::all_of(workers.begin(), workers.end(),
                     [](const WorkerSnapshot& worker) { return worker.state == State::kReady; });
}

std::vector<int> Generate(Dispatcher& dispatcher, int max_tokens) {
  const auto sink = std::make_shared<WaitingSink>();
  dispatcher.Start(MakeSubmit(0, max_tokens), std::nullopt, sink);
  REQUIRE(sink->WaitForDone());
  INFO(sink->status());
  REQUIRE(sink->status().ok());
  return sink->ids();
}

const WorkerSnapshot Busy(const Dispatcher& dispatcher) {
  for (const WorkerSnapshot& worker : dispatcher.Workers()) {
    if (worker.requests_running > 0) return worker;
  }
  return {};
}

bool IsGone(int pid) { return ::kill(pid, 0) != 0; }

TEST_CASE("children serve, and end with the dispatcher") {
  Folder folder;
  config::Config config = MakeConfig(folder, 2);
  config.workers.runtime_dir.clear();  // one of its own
  std::vector<int> told;
  std::mutex told_mutex;
  std::unique_ptr<Dispatcher> dispatcher = MakeDispatcher(config);
  dispatcher->OnReadyChange([&](int ready) {
    std::lock_guard lock(told_mutex);
    told.push_back(ready);
  });
  REQUIRE(Eventually([&] { return AllReady(*dispatcher); }));
  CHECK(Generate(*dispatcher, 40).size() == 40);
  std::vector<WorkerSnapshot> workers = dispatcher->Workers();
  CHECK(workers[0].ready.numerics_id() == workers[1].ready.numerics_id());
  CHECK(workers[0].ready.threads() == 1);
  const fs::path socket = workers[0].address.substr(std::string("unix:").size());
  CHECK(fs::exists(socket));
  const auto sink = std::make_shared<WaitingSink>();
  dispatcher->Start(MakeSubmit(0, 8000), std::nullopt, sink);
  REQUIRE(sink->WaitForTokens(1));
  dispatcher.reset();
  REQUIRE(sink->WaitForDone());
  CHECK(absl::IsUnavailable(sink->status()));
  for (const WorkerSnapshot& worker : workers) CHECK(IsGone(worker.pid));
  CHECK_FALSE(fs::exists(socket.parent_path()));
  CHECK(told.front() >= 0);
  CHECK(*std::max_element(told.begin(), told.end()) == 2);
}

TEST_CASE("a worker that is killed or stopped in the middle breaks no stream") {
  Folder folder;
  std::unique_ptr<Dispatcher> dispatcher = MakeDispatcher(MakeConfig(folder, 2));
  REQUIRE(Eventually([&] { return AllReady(*dispatcher); }));
  const std::vector<int> expected = Generate(*dispatcher, 600);
  for (const int number : {SIGKILL, SIGSTOP}) {
    INFO("signal " << number);
    const auto sink = std::make_shared<WaitingSink>();
    dispatcher->Start(MakeSubmit(0, 600), std::nullopt, sink);
    REQUIRE(sink->WaitForTokens(5));
    const WorkerSnapshot victim = Busy(*dispatcher);
    REQUIRE(victim.pid > 0);
    ::kill(victim.pid, number);
    REQUIRE(sink->WaitForDone());
    INFO(sink->status());
    CHECK(sink->status().ok());
    CHECK(sink->in_order());
    CHECK(sink->ids() == expected);
    CHECK(sink->replays() == 1);
    REQUIRE(Eventually([&] { return IsGone(victim.pid); }));
    REQUIRE(Eventually([&] { return AllReady(*dispatcher); }));
  }
  int restarts = 0;
  for (const WorkerSnapshot& worker : dispatcher->Workers()) restarts += worker.restarts;
  CHECK(restarts == 2);
}

TEST_CASE("a worker that gets SIGTERM finishes its request and is started again") {
  Folder folder;
  std::unique_ptr<Dispatcher> dispatcher = MakeDispatcher(MakeConfig(folder, 1));
  const auto sink = std::make_shared<WaitingSink>();
  dispatcher->Start(MakeSubmit(0, 500), std::nullopt, sink);
  REQUIRE(sink->WaitForTokens(5));
  const int pid = Busy(*dispatcher).pid;
  ::kill(pid, SIGTERM);
  REQUIRE(sink->WaitForDone());
  CHECK(sink->status().ok());
  CHECK(sink->replays() == 0);
  CHECK(sink->ids().size() == 500);
  REQUIRE(Eventually([&] { return AllReady(*dispatcher) && dispatcher->Workers()[0].pid != pid; }));
  CHECK(Generate(*dispatcher, 5).size() == 5);
}

TEST_CASE("a program that is no worker is reported and tried again") {
  Folder folder;
  config::Config config = MakeConfig(folder, 1);
  config.workers.restart_backoff_ms = 20;
  config.workers.no_worker_timeout_ms = 200;
  std::string detail;
  SECTION("it ends at once") {
    config.workers.binary = folder.Script("#!/bin/sh\nexit 3\n");
    detail = "exit code 3";
  }
  SECTION("it is no program") {
    config.workers.binary = folder.Script(std::string("\x7f\0\0\0", 4));
    detail = "Exec format error";
  }
  SECTION("it is never ready") {
    config.workers.binary = folder.Script("#!/bin/sh\nexec sleep 1000\n");
    config.workers.start_timeout_ms = 100;
    detail = "not ready within 100 ms";
  }
  std::unique_ptr<Dispatcher> dispatcher = MakeDispatcher(config);
  CHECK(Eventually([&] {
    const WorkerSnapshot worker = dispatcher->Workers()[0];
    return worker.restarts >= 2 && worker.detail.find(detail) != std::string::npos;
  }));
  const auto sink = std::make_shared<WaitingSink>();
  dispatcher->Start(MakeSubmit(0, 5), std::nullopt, sink);
  REQUIRE(sink->WaitForDone());
  CHECK(absl::IsUnavailable(sink->status()));
}

TEST_CASE("what cannot work is an error at once") {
  Folder folder;
  config::Config config = MakeConfig(folder, 1);
  const auto message = [&] {
    const absl::StatusOr<std::unique_ptr<Dispatcher>> dispatcher = CreateDispatcher({.config = config});
    REQUIRE_FALSE(dispatcher.ok());
    return std::string(dispatcher.status().message());
  };
  SECTION("no program") {
    config.workers.binary = "/nowhere/mnemo-worker";
    CHECK_THAT(message(), Catch::Contains("workers.binary") && Catch::Contains("/nowhere/mnemo-worker"));
  }
  SECTION("no model") {
    config.model.path = "/nowhere/model.gguf";
    CHECK_THAT(message(), Catch::Contains("/nowhere/model.gguf"));
  }
  SECTION("a memory device that this build has not") {
    config.memory.services = 1;
    config.memory.device = "abacus";
    CHECK_THAT(message(),
               Catch::StartsWith(
                   "memory.device: \"abacus\" is not a kind of this build; allowed: cpu | card-model"));
    config.memory.device = "cpu";
    config.memory.device_options = {"beads=10"};
    CHECK(message() == "memory.device_options: \"beads\" is no option of cpu; allowed: none");
  }
  SECTION("no worker") {
    config.workers.count = 0;
    CHECK_THAT(message(), Catch::Contains("workers") && Catch::Contains("addresses"));
  }
  SECTION("a runtime directory that another one has") {
    const auto first = MakeDispatcher(config);
    CHECK_THAT(message(), Catch::Contains("workers.runtime_dir") &&
                              Catch::Contains(fmt::format("process {}", ::getpid())));
  }
}

TEST_CASE("a runtime directory too long for a socket's path gives way to a short one") {
  Folder folder;
  config::Config config = MakeConfig(folder, 1);
  config.workers.runtime_dir = (folder.sockets() / std::string(100, 'x')).string();
  const auto dispatcher = MakeDispatcher(config);
  CHECK(Eventually([&] { return AllReady(*dispatcher); }));
  CHECK(dispatcher->Workers()[0].address.find(config.workers.runtime_dir) == std::string::npos);
}

// A port that was free a moment ago.
int FreePort() {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return ntohs(address.sin_port);
}

// Settings of a worker that is started by hand.
std::vector<config::Override> SettingsOf(const Folder& folder) {
  return {{"model.path", folder.model}, {"device", "reference"}, {"cpu.threads", "1"}, {"log.level", "warn"}};
}

TEST_CASE("a worker that others run is used over TCP, and again when it is back") {
  Folder folder;
  worker_service::WorkerOptions options;
  options.listen = fmt::format("127.0.0.1:{}", FreePort());
  options.lifeline_fd = kChildLifelineFd;
  const auto start = [&] {
    absl::StatusOr<ChildProcess> process =
        ChildProcess::Spawn(MNEMO_WORKER_PROGRAM, WorkerArguments(options, -1, SettingsOf(folder)), -1);
    REQUIRE(process.ok());
    return *std::move(process);
  };
  config::Config config = MakeConfig(folder, 0);
  config.workers.addresses = {options.listen};
  config.workers.restart_backoff_max_ms = 200;
  std::unique_ptr<Dispatcher> dispatcher = MakeDispatcher(config);
  const auto sink = std::make_shared<WaitingSink>();
  dispatcher->Start(MakeSubmit(0, 400), std::nullopt, sink);
  {
    ChildProcess first = start();
    REQUIRE(sink->WaitForTokens(5));
    CHECK(dispatcher->Workers()[0].pid == 0);
    first.Signal(SIGKILL);
    REQUIRE(Eventually([&] { return first.Reap().has_value(); }));
  }
  ChildProcess second = start();
  REQUIRE(sink->WaitForDone());
  CHECK(sink->status().ok());
  CHECK(sink->replays() == 1);
  CHECK(sink->ids() == Generate(*dispatcher, 400));
  dispatcher.reset();
  CHECK_FALSE(second.Reap().has_value());  // not ours to stop
  second.Signal(SIGTERM);
  std::optional<std::string> how;
  REQUIRE(Eventually([&] { return (how = second.Reap()).has_value(); }));
  CHECK(*how == "exit code 0");
}

TEST_CASE("a child's wait for a core can be read, and a stopped child does not wait") {
  if (::access("/proc/self/schedstat", R_OK) != 0) return;  // a kernel without CONFIG_SCHED_INFO
  absl::StatusOr<ChildProcess> child = ChildProcess::Spawn("/bin/sh", {"-c", "while :; do :; done"}, -1);
  REQUIRE(child.ok());
  CHECK(Eventually([&] { return child->CoreWait().count() > 0; }));
  child->Signal(SIGSTOP);
  CHECK(Eventually([&] {
    const auto before = child->CoreWait();
    std::this_thread::sleep_for(milliseconds(20));
    return child->CoreWait() == before;
  }));
  child->Signal(SIGKILL);
  REQUIRE(Eventually([&] { return child->Reap().has_value(); }));
}

TEST_CASE("a child ends when the other end of its lifeline closes") {
  Folder folder;
  worker_service::WorkerOptions options;
  options.lifeline_fd = kChildLifelineFd;
  options.private_dir = (folder.sockets() / "private").string();
  fs::create_directories(options.private_dir);
  options.listen = "unix:" + options.private_dir + "/worker.sock";
  std::optional<ChildProcess> child =
      *ChildProcess::Spawn(MNEMO_WORKER_PROGRAM, WorkerArguments(options, -1, SettingsOf(folder)), -1);
  const int pid = child->pid();
  if (GENERATE(true, false)) {
    REQUIRE(Eventually([&] { return child->ReadListening(); }));
    CHECK(fs::exists(options.private_dir + "/worker.sock"));
  }
  child.reset();
  // Still ours to reap.
  int status = 0;
  REQUIRE(Eventually([&] { return ::waitpid(pid, &status, WNOHANG) == pid; }));
  CHECK(WIFEXITED(status));
  CHECK_FALSE(fs::exists(options.private_dir));
}

}  // namespace
}  // namespace mnemo::dispatch
