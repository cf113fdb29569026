// mnemo-energy's protocol over real sockets: server and client, strange peers, death and return.
#include "devices/energy/reading_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "devices/energy/remote_meters.h"
#include "devices/energy/testing/energy_fixture.h"

namespace mnemo::energy {
namespace {

using namespace testing;  // NOLINT: the tools of these tests

using Catch::Matchers::Contains;

// A source whose only meter adds `watts` while time passes.
class SteadySource : public EnergySource {
 public:
  void Sample(const Round& round, std::vector<EnergyInterval>* intervals) override {
    const int64_t now_ns = round.now_ns;
    if (last_ns_ > 0 && now_ns > last_ns_) {
      const double joules = watts * 1e-9 * static_cast<double>(now_ns - last_ns_);
      intervals->push_back({state.device, last_ns_, now_ns, joules});
      state.joules_total += joules;
    }
    last_ns_ = now_ns;
  }
  std::vector<MeterState> States() const override { return {state}; }

  double watts = 12.3;
  MeterState state = {.device = {DeviceKind::kCpu, 0, "rapl"}, .is_up = true};

 private:
  int64_t last_ns_ = 0;
};

struct Node {
  explicit Node(size_t max_clients = 16) : max_clients_(max_clients) {
    Start(1);
    meters = std::make_unique<RemoteMeters>(
        RemoteMetersOptions{.socket = path, .devices = {{DeviceKind::kCpu, 0, "rapl"}}, .log = world.Log()});
  }
  void Start(uint64_t instance) {
    absl::StatusOr<UniqueFd> listener = ListenForReaders(path, "");
    REQUIRE(listener.ok());
    server = std::make_unique<ReadingServer>(
        &source, *std::move(listener),
        ReadingServerOptions{.instance = instance, .max_clients = max_clients_, .log = server_world.Log()});
  }
  // Time passes, the server samples and sends, the client reads.
  std::vector<EnergyInterval> Round() {
    world.Pass(kTestIntervalNs);
    if (server != nullptr) {
      server->Attend(0);
      server->Serve(world.Present());
    }
    std::vector<EnergyInterval> intervals;
    meters->Sample(world.Present(), &intervals);
    return intervals;
  }
  double Rounds(int count) {
    double joules = 0;
    for (int i = 0; i < count; ++i) joules += Joules(Round());
    return joules;
  }
  MeterReport Report() const {
    std::vector<MeterReport> reports;
    meters->AppendReports(&reports);
    REQUIRE(reports.size() == 1);
    return reports[0];
  }

  mnemo::testing::TempFolder folder;
  std::string path = folder.path("meters.sock");
  TestWorld world, server_world;
  SteadySource source;
  std::unique_ptr<ReadingServer> server;
  std::unique_ptr<RemoteMeters> meters;

 private:
  const size_t max_clients_;
};

UniqueFd ConnectTo(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

TEST_CASE("readings are rounded to 0.1 J, and their errors do not add up") {
  Node node;
  CHECK_FALSE(node.Report().is_up);
  double joules = 0;
  for (int i = 0; i < 1000; ++i) {
    for (const EnergyInterval& interval : node.Round()) {
      joules += interval.joules;
      CHECK(interval.joules * 10 == Approx(std::round(interval.joules * 10)).margin(1e-6));
    }
  }
  CHECK(node.Report().is_up);
  CHECK(joules == Approx(node.source.state.joules_total).margin(2 * 12.3 * 0.1 + kServedJoules));
  CHECK(joules > 1200);
}

TEST_CASE("the socket has mode 0660, and only one server listens at it") {
  Node node;
  struct stat info = {};
  REQUIRE(::stat(node.path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0660);
  CHECK(absl::IsUnavailable(ListenForReaders(node.path, "").status()));
  node.server = nullptr;
  CHECK(ListenForReaders(node.path, "").ok());
  CHECK_THAT(std::string(ListenForReaders(node.folder.Write("file", "x"), "").status().message()),
             Contains("no socket"));
  CHECK_THAT(std::string(ListenForReaders(std::string(108, 'a'), "").status().message()),
             Contains("108 bytes, allowed are 1 to 107"));
  CHECK_THAT(std::string(ListenForReaders(node.folder.path("b"), "no-such-group").status().message()),
             Contains("no group no-such-group"));
}

TEST_CASE("a client that does not read delays nobody") {
  Node node;
  const UniqueFd sleeper = ConnectTo(node.path);
  // Far more than a socket's buffer holds.
  CHECK(node.Rounds(5000) == Approx(5000 * 1.23).epsilon(0.01));
  CHECK(node.server->clients() == 2);
  // When it wakes up it has old messages, then the end or new ones: each one is whole.
  std::string message(kMaxMessageBytes, '\0');
  const ssize_t length = ::recv(sleeper.get(), message.data(), message.size(), MSG_DONTWAIT);
  REQUIRE(length > 0);
  CHECK(DecodeReadings(message.substr(0, static_cast<size_t>(length))).ok());
}

TEST_CASE("clients that send, that leave, and one too many are closed") {
  Node node(2);
  CHECK(node.Rounds(5) > 0);
  const UniqueFd talker = ConnectTo(node.path);
  node.Round();
  CHECK(node.server->clients() == 2);
  const UniqueFd extra = ConnectTo(node.path);
  node.Round();
  CHECK(node.server->clients() == 2);
  char byte = 0;
  CHECK(::recv(extra.get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK_THAT(node.server_world.log.at(0), Contains("2 are connected"));
  REQUIRE(::send(talker.get(), "hello", 5, MSG_NOSIGNAL) == 5);
  node.server->Attend(0);
  CHECK(node.server->clients() == 1);
  {
    const UniqueFd visitor = ConnectTo(node.path);
    node.server->Attend(0);
    CHECK(node.server->clients() == 2);
  }
  node.server->Attend(0);
  CHECK(node.server->clients() == 1);
  CHECK(node.Rounds(5) > 0);
}

TEST_CASE("mnemo-energy dies and returns: no joules are made up in between") {
  Node node;
  node.Rounds(10);
  node.server = nullptr;
  CHECK(node.Rounds(10) == 0);
  CHECK_FALSE(node.Report().is_up);
  CHECK(node.Report().dropped[static_cast<int>(DropReason::kError)] >= 1);
  REQUIRE(node.world.log.size() == 1);
  CHECK_THAT(node.world.log[0], Contains("no readings from mnemo-energy at " + node.path));
  // A new instance begins at zero; the client comes back within its pause.
  node.Start(2);
  double joules = 0;
  int rounds = 0;
  for (; rounds < 100 && joules == 0; ++rounds) joules += Joules(node.Round());
  CHECK(joules > 0);
  CHECK(joules < 1.23 * 3);
  CHECK(node.Report().is_up);
  CHECK_THAT(node.world.log.at(1), Contains("again"));
}

TEST_CASE("a reading that mnemo-energy has dropped makes no interval at the client") {
  Node node;
  node.Rounds(10);
  node.source.state.dropped[static_cast<int>(DropReason::kGap)] = 1;
  CHECK(node.Rounds(1) == 0);
  CHECK(node.Rounds(1) > 0);
  node.source.state.is_up = false;
  CHECK(node.Rounds(5) == 0);
  CHECK(node.Report().dropped[static_cast<int>(DropReason::kGap)] == 1);
  node.source.state.is_up = true;
  CHECK(node.Rounds(1) == 0);
  CHECK(node.Rounds(1) > 0);
}

TEST_CASE("a client closes a server that is silent or talks of something else") {
  mnemo::testing::TempFolder folder;
  const std::string path = folder.path("meters.sock");
  absl::StatusOr<UniqueFd> listener = ListenForReaders(path, "");
  REQUIRE(listener.ok());
  TestWorld world;
  RemoteMeters meters({.socket = path, .devices = {{DeviceKind::kCpu, 0, "rapl"}}, .log = world.Log()});
  std::vector<EnergyInterval> intervals;
  meters.Sample(world.Present(), &intervals);
  const UniqueFd first(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(first.valid());
  world.Pass(6 * kTestSecondNs);
  meters.Sample(world.Present(), &intervals);
  CHECK_THAT(world.log.at(0), Contains("silent for 5 s"));
  world.Pass(2 * kTestSecondNs);
  meters.Sample(world.Present(), &intervals);
  const UniqueFd second(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(second.valid());
  const std::string garbage = "HTTP/1.1 200 OK\n";
  REQUIRE(::send(second.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL) > 0);
  world.Pass(kTestIntervalNs);
  meters.Sample(world.Present(), &intervals);
  char byte = 0;
  CHECK(::recv(second.get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(intervals.empty());
}

TEST_CASE("messages survive a round trip, and no cut or changed one is taken for another") {
  Readings readings;
  readings.instance = 77;
  readings.meters.push_back({{{DeviceKind::kDram, 3, "rapl"}, true, {1, 2, 3, 4}}, 123456789, 42});
  readings.meters.push_back({{{DeviceKind::kGpu, 0, "rocm_smi"}, false, {}}, 0, 0});
  const std::string message = EncodeReadings(readings);
  const absl::StatusOr<Readings> decoded = DecodeReadings(message);
  REQUIRE(decoded.ok());
  CHECK(EncodeReadings(*decoded) == message);
  for (size_t length = 0; length < message.size(); ++length) {
    const absl::StatusOr<Readings> cut = DecodeReadings(message.substr(0, length));
    if (cut.ok()) CHECK(message[length - 1] == '\n');
  }
  for (const char* bad :
       {"", "mnemo-energy 2 5\n", "mnemo-energy 1 0\n", "mnemo-energy 1 5 6\n",
        "mnemo-energy 1 5\ncpu0 rapl 1 1 1\n", "mnemo-energy 1 5\ncpu0 rapl 2 1 1 0 0 0 0\n",
        "mnemo-energy 1 5\ncpu0 rapl 1 -1 1 0 0 0 0\n", "mnemo-energy 1 5\ntpu0 rapl 1 1 1 0 0 0 0\n",
        "mnemo-energy 1 5\ncpu0 ../x 1 1 1 0 0 0 0\n", "mnemo-energy 1 5\ncpu9999 rapl 1 1 1 0 0 0 0\n",
        "mnemo-energy 1 5\ncpu0 rapl 1 1 1 0 0 0 0 0\n"}) {
    INFO(bad);
    CHECK(absl::IsDataLoss(DecodeReadings(bad).status()));
  }
  std::string many = "mnemo-energy 1 5\n";
  for (size_t i = 0; i <= kMaxReadings; ++i) many += "cpu0 rapl 1 1 1 0 0 0 0\n";
  CHECK(absl::IsDataLoss(DecodeReadings(many).status()));
  // Random bytes in the place of one are an error or another valid message, never worse.
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string changed = message;
    changed[random() % changed.size()] = static_cast<char>(random());
    (void)DecodeReadings(changed);
  }
}

}  // namespace
}  // namespace mnemo::energy
