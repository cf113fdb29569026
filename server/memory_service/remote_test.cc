// The service over UCX: in one process, and between two network namespaces, which stand for two machines.
#include "devices/transport/remote.h"

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/unique_fd.h"
#include "server/memory_service/plane_fixture.h"
#include "server/memory_service/random_worker.h"

namespace mnemo::memory_service {
namespace {

using transport::RemoteListener;

// Null, with a word about it, when this build has no UCX.
std::unique_ptr<RemoteListener> ListenAt(const std::string& host_port, DataPlane* plane) {
  absl::StatusOr<std::unique_ptr<RemoteListener>> listener =
      RemoteListener::Create(host_port, plane->device_name(), plane);
  if (listener.ok()) return std::move(*listener);
  WARN(std::string(listener.status().message()));
  REQUIRE(listener.status().code() == absl::StatusCode::kUnimplemented);
  return nullptr;
}

bool Succeeds(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()) == 0; }

bool SoonSucceeds(const std::string& command) {
  for (int i = 0; i < 500; ++i) {
    if (Succeeds(command)) return true;
    ::usleep(20000);
  }
  return false;
}

// A network without devices, and a /sys that shows them, where UCX looks for them.
bool EnterNewNetwork() {
  return ::unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("sysfs", "/sys", "sysfs", 0, nullptr) == 0;
}

// Runs first, while the process has one thread.
TEST_CASE("a worker in another network namespace gets what the reference gives; its death is noticed") {
  const auto absent = RemoteListener::Create("nohost", "", nullptr).status();
  if (absent.code() == absl::StatusCode::kUnimplemented) {
    WARN(std::string(absent.message()));
    return;
  }
  int go[2];
  int done[2];
  REQUIRE(::pipe(go) == 0);
  REQUIRE(::pipe(done) == 0);
  // Otherwise UCX sees that both are on one machine.
  ::setenv("UCX_TLS", "tcp", 1);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = EnterNewNetwork() ? 'y' : 'n';
    MNEMO_CHECK(::write(done[1], &byte, 1) == 1 && ::read(go[0], &byte, 1) == 1);
    {
      RandomWorker worker("ucx:10.77.0.1:7777", "worker0", 5);
      for (int step = 0; step < 100; ++step) worker.Step();
    }
    TestWorker mortal("ucx:10.77.0.1:7777", "mortal");
    const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
    MNEMO_CHECK(mortal.Create(0, 1, spec).status == layout::kStatusOk);
    MNEMO_CHECK(::write(done[1], "x", 1) == 1);
    while (true) ::pause();
  }
  char byte = 0;
  REQUIRE(::read(done[0], &byte, 1) == 1);
  const std::string pid = std::to_string(child);
  const bool apart = byte == 'y' && Succeeds("ip -V >/dev/null") && Succeeds("nsenter -V >/dev/null") &&
                     EnterNewNetwork() && Succeeds("ip link set lo up") &&
                     Succeeds("ip link add mnemo0 type veth peer name mnemo1 netns " + pid) &&
                     Succeeds("ip addr add 10.77.0.1/24 dev mnemo0") && Succeeds("ip link set mnemo0 up") &&
                     Succeeds("nsenter -t " + pid + " -n ip addr add 10.77.0.2/24 dev mnemo1") &&
                     Succeeds("nsenter -t " + pid + " -n ip link set mnemo1 up") &&
                     // UCX leaves out a device without a carrier.
                     SoonSucceeds("nsenter -t " + pid + " -n ip link show mnemo1 | grep -q 'state UP'");
  if (!apart) {
    WARN("no second network namespace here; needs CAP_NET_ADMIN, ip and nsenter");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::unsetenv("UCX_TLS");
    return;
  }
  {
    TestPlane service;
    const std::unique_ptr<RemoteListener> listener = ListenAt("10.77.0.1:7777", service.plane.get());
    REQUIRE(listener != nullptr);
    REQUIRE(::write(go[1], "x", 1) == 1);
    ::close(done[1]);
    REQUIRE(::read(done[0], &byte, 1) == 1);  // nothing comes when the child has failed
    CHECK(service.plane->Stats().indexes == 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (int i = 0; i < 2000 && !service.plane->Stats().owners.empty(); ++i) ::usleep(10000);
    CHECK(service.plane->Stats().owners.empty());
  }
  ::unsetenv("UCX_TLS");
}

TEST_CASE("random operations over UCX give what the reference gives") {
  TestPlane service({.threads = 2});
  const std::unique_ptr<RemoteListener> listener = ListenAt("127.0.0.1:0", service.plane.get());
  if (listener == nullptr) return;
  RandomWorker worker("ucx:127.0.0.1:" + std::to_string(listener->port()), "worker0", 9);
  RandomWorker local(service.address(), "worker1", 10);
  for (int step = 0; step < 200; ++step) {
    worker.Step();
    local.Step();
  }
}

TEST_CASE("connections that say nothing hold up no remote attachment") {
  TestPlane service;
  const std::unique_ptr<RemoteListener> listener = ListenAt("127.0.0.1:0", service.plane.get());
  if (listener == nullptr) return;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(static_cast<uint16_t>(listener->port()));
  std::vector<UniqueFd> silent;
  while (silent.size() < 8) {
    silent.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(silent.back().get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  }
  const auto attached = AttachTo("ucx:127.0.0.1:" + std::to_string(listener->port()), "worker0");
  CHECK(attached.status().ToString() == "OK");
}

TEST_CASE("an address where nobody answers, not even to refuse, is given up in time") {
  if (RemoteListener::Create("nohost", "", nullptr).status().code() == absl::StatusCode::kUnimplemented)
    return;
  // The system drops what comes to a socket whose queue is full, as the network does for a machine that is
  // gone.
  const UniqueFd full(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof at;
  auto* const address = reinterpret_cast<sockaddr*>(&at);
  REQUIRE(::bind(full.get(), address, length) == 0);
  REQUIRE(::listen(full.get(), 0) == 0);
  REQUIRE(::getsockname(full.get(), address, &length) == 0);
  std::vector<UniqueFd> waiting;
  while (waiting.size() < 8) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    (void)::connect(waiting.back().get(), address, length);
  }
  transport::AttachOptions options;
  options.address = "ucx:127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  options.owner = "worker0";
  options.wanted = layout::NewHello();
  options.timeout = std::chrono::milliseconds(200);
  const absl::Status status = transport::Attach(options).status();
  CHECK(status.code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(std::string(status.message()), Catch::Contains("in time"));
}

TEST_CASE("a remote attachment is refused like a local one, and its end is noticed by the worker") {
  TestPlane service({.max_owners = 1});
  const std::unique_ptr<RemoteListener> listener = ListenAt("127.0.0.1:0", service.plane.get());
  if (listener == nullptr) return;
  const std::string address = "ucx:127.0.0.1:" + std::to_string(listener->port());
  TestWorker worker(address, "worker0");
  CHECK(worker.link->granted().placement == layout::kResultsAtWorker);
  const absl::Status second = AttachTo(address, "worker1").status();
  CHECK(second.code() == absl::StatusCode::kResourceExhausted);
  transport::AttachOptions options;
  options.address = address;
  options.owner = "worker1";
  options.wanted = layout::NewHello();
  options.wanted.layout_hash ^= 1;
  const absl::Status other = transport::Attach(options).status();
  CHECK(other.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(other.message().find("layout_hash") != absl::string_view::npos);
  CHECK(service.plane->Drop("worker0", 0) == 1);
  CHECK(worker.link->Wait(Ring::kQuery, std::chrono::seconds(30)).code() == absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mnemo::memory_service
