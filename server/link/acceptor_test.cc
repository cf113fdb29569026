#include "server/link/acceptor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "server/link/socket.h"
#include "tests/support/temp_folder.h"

namespace mnemo::link {
namespace {

using mnemo::testing::TempFolder;
using std::chrono::seconds;

constexpr seconds kLong{20};
const std::atomic<bool> kNeverCancelled{false};

// Records the connections and log lines of an acceptor.
struct Host {
  Acceptor::Options Options(const std::string& address, int max_connections = 0) {
    Acceptor::Options options;
    options.address = address;
    options.max_connections = max_connections;
    options.bound = "the.bound";
    options.on_connection = [this](UniqueFd connection, int) {
      std::lock_guard lock(mutex);
      connections.push_back(std::move(connection));
      changed.notify_all();
    };
    options.on_trouble = [this](const std::string& line) {
      std::lock_guard lock(mutex);
      troubles.push_back(line);
      changed.notify_all();
    };
    return options;
  }
  template <typename Condition>
  bool Wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kLong, condition);
  }
  bool WaitConnections(size_t count) {
    return Wait([&] { return connections.size() >= count; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<UniqueFd> connections;
  std::vector<std::string> troubles;
};

std::unique_ptr<Acceptor> Listening(Acceptor::Options options) {
  auto acceptor = Acceptor::Listen(std::move(options));
  REQUIRE(acceptor.ok());
  REQUIRE((*acceptor)->Start().ok());
  return *std::move(acceptor);
}

UniqueFd ConnectTo(const std::string& address) {
  auto connection = Connect(address, {}, kNeverCancelled);
  REQUIRE(connection.ok());
  return *std::move(connection);
}

// Reads everything until the other end closes.
std::string ReadToEnd(int fd) {
  std::string text;
  char buffer[1024];
  pollfd ready = {fd, POLLIN, 0};
  while (::poll(&ready, 1, 20000) > 0) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

TEST_CASE("Connections are accepted at every address of a host") {
  Host host;
  const auto acceptor = Listening(host.Options("localhost:0"));
  REQUIRE(acceptor->port() > 0);
  CHECK(acceptor->address() == "localhost:" + std::to_string(acceptor->port()));
  const UniqueFd first = ConnectTo("127.0.0.1:" + std::to_string(acceptor->port()));
  REQUIRE(host.WaitConnections(1));
  CHECK(acceptor->CountOpen() == 1);
  host.connections.clear();
  CHECK(acceptor->CountOpen() == 0);
}

TEST_CASE("An address can be used only once") {
  Host host;
  const auto first = Listening(host.Options("127.0.0.1:0"));
  const auto second = Acceptor::Listen(host.Options(first->address()));
  CHECK(absl::IsUnavailable(second.status()));
  CHECK(std::string(second.status().message()).find("Address already in use") != std::string::npos);
}

TEST_CASE("A kept socket serves its address again, with the clients that waited; others are closed") {
  Host host;
  Acceptor::Inherited inherited;
  inherited.kept.push_back(*Listen("127.0.0.1:0"));
  inherited.kept.push_back(*Listen("127.0.0.1:0"));
  inherited.kept.emplace_back(::eventfd(0, EFD_CLOEXEC));
  const std::string address = *ListeningAddress(inherited.kept[0].get());
  const std::string other = *ListeningAddress(inherited.kept[1].get());
  const UniqueFd waiting = ConnectTo(address);
  const auto acceptor = Acceptor::Listen(host.Options(address), std::move(inherited));
  REQUIRE(acceptor.ok());
  REQUIRE((*acceptor)->Start().ok());
  CHECK(host.WaitConnections(1));
  CHECK((*acceptor)->address() == address);
  REQUIRE((*acceptor)->own_listeners().size() == 1);
  CHECK(*ListeningAddress((*acceptor)->own_listeners()[0]) == address);
  CHECK(absl::IsUnavailable(Connect(other, {}, kNeverCancelled).status()));
}

TEST_CASE("Passed sockets serve besides the address, and their files stay") {
  TempFolder folder;
  Host host;
  const std::string passed = "unix:" + folder.path("passed");
  const std::string own = "unix:" + folder.path("own");
  {
    Acceptor::Inherited inherited;
    inherited.passed.push_back(*Listen(passed));
    const auto acceptor = Acceptor::Listen(host.Options(own), std::move(inherited));
    REQUIRE(acceptor.ok());
    REQUIRE((*acceptor)->Start().ok());
    CHECK((*acceptor)->own_listeners().size() == 1);
    const UniqueFd first = ConnectTo(passed), second = ConnectTo(own);
    CHECK(host.WaitConnections(2));
  }
  CHECK(std::filesystem::exists(folder.path("passed")));
  CHECK_FALSE(std::filesystem::exists(folder.path("own")));
  // The address itself may be passed.
  {
    std::filesystem::remove(folder.path("passed"));
    Acceptor::Inherited inherited;
    inherited.passed.push_back(*Listen(passed));
    const auto acceptor = Acceptor::Listen(host.Options(passed), std::move(inherited));
    REQUIRE(acceptor.ok());
    CHECK((*acceptor)->own_listeners().empty());
  }
  CHECK(std::filesystem::exists(folder.path("passed")));
  Acceptor::Inherited wrong;
  wrong.passed.emplace_back(::eventfd(0, EFD_CLOEXEC));
  const auto refused = Acceptor::Listen(host.Options(own), std::move(wrong));
  CHECK(absl::IsInvalidArgument(refused.status()));
  CHECK(std::string(refused.status().message()).find("no listening stream socket") != std::string::npos);
}

TEST_CASE("Clients read what was written before the end of the connections") {
  Host host;
  const auto acceptor = Listening(host.Options("127.0.0.1:0"));
  const UniqueFd client = ConnectTo(acceptor->address());
  REQUIRE(host.WaitConnections(1));
  REQUIRE(::write(host.connections[0].get(), "last", 4) == 4);
  acceptor->Stop();
  acceptor->EndConnections();
  CHECK(ReadToEnd(client.get()) == "last");
}

TEST_CASE("A socket's file has its mode, replaces a stale one, spares a live one and goes at the end") {
  TempFolder folder;
  const std::string path = folder.path("s");
  Host host;
  Acceptor::Options options = host.Options("unix:" + path);
  options.unix_mode = 0620;
  {
    const UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.data(), path.size());
    REQUIRE(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
  }
  auto acceptor = Listening(options);
  struct stat info = {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0620);
  const auto second = Acceptor::Listen(options);
  CHECK(absl::IsUnavailable(second.status()));
  CHECK(std::string(second.status().message()).find("another process does") != std::string::npos);
  const UniqueFd client = ConnectTo("unix:" + path);
  CHECK(host.WaitConnections(1));
  acceptor.reset();
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("A file that is no socket, and a path that is too long, are refused and left alone") {
  TempFolder folder;
  const std::string path = folder.path("f");
  std::ofstream(path) << "text";
  Host host;
  const auto plain = Acceptor::Listen(host.Options("unix:" + path));
  CHECK(std::string(plain.status().message()).find("the file is no socket") != std::string::npos);
  CHECK(std::filesystem::file_size(path) == 4);
  const auto longer = Acceptor::Listen(host.Options("unix:/" + std::string(107, 'x')));
  CHECK(absl::IsInvalidArgument(longer.status()));
  CHECK(std::string(longer.status().message()).find("1 to 107 bytes") != std::string::npos);
}

TEST_CASE("A file that another process has put there stays at the end") {
  TempFolder folder;
  const std::string path = folder.path("s");
  Host host;
  auto first = Listening(host.Options("unix:" + path));
  std::filesystem::rename(path, path + ".old");
  const auto second = Listening(host.Options("unix:" + path));
  first.reset();
  CHECK(std::filesystem::exists(path));
}

// Lowers the limit so that few descriptors are left, and takes these.
struct Shortage {
  Shortage() {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit small = before;
    small.rlim_cur = 64;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &small) == 0);
    for (int fd; (fd = ::dup(0)) >= 0;) taken.emplace_back(fd);
  }
  ~Shortage() { ::setrlimit(RLIMIT_NOFILE, &before); }
  rlimit before = {};
  std::vector<UniqueFd> taken;
};

TEST_CASE("A shortage of descriptors passes, and is reported once") {
  Host host;
  const auto acceptor = Listening(host.Options("127.0.0.1:0"));
  Shortage shortage;
  shortage.taken.resize(shortage.taken.size() - 1);  // one for the client
  // No check before the shortage is over: a sanitizer's inspection of an object takes descriptors.
  const auto early = Connect(acceptor->address(), {}, kNeverCancelled);
  const bool was_told = host.Wait([&] { return host.troubles.size() == 1; });
  ::usleep(300000);
  const bool was_refused = host.Wait([&] { return host.connections.empty(); });
  shortage.taken.clear();
  REQUIRE(early.ok());
  REQUIRE(was_told);
  CHECK(was_refused);
  REQUIRE(host.WaitConnections(1));
  const UniqueFd late = ConnectTo(acceptor->address());
  REQUIRE(host.WaitConnections(2));
  std::lock_guard lock(host.mutex);
  REQUIRE(host.troubles.size() == 2);
  CHECK(host.troubles[0] ==
        "accepting a connection: Too many open files; new clients wait until that has passed");
  CHECK(host.troubles[1] == "connections are accepted again");
}

TEST_CASE("One connection past the limit is refused, and accepted once there is room") {
  Host host;
  const auto acceptor = Listening(host.Options("127.0.0.1:0", 3));
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(ConnectTo(acceptor->address()));
  REQUIRE(host.WaitConnections(3));
  const UniqueFd extra = ConnectTo(acceptor->address());
  // The preface, empty SETTINGS, and HEADERS of stream 1 with one field (:method POST).
  const std::string call = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") +
                           std::string("\0\0\0\4\0\0\0\0\0", 9) + std::string("\0\0\1\1\5\0\0\0\1\x83", 10);
  // In pieces, as a network may deliver it.
  for (const char byte : call) REQUIRE(::write(extra.get(), &byte, 1) == 1);
  const std::string answer = ReadToEnd(extra.get());
  CHECK(answer.substr(0, 9) == std::string("\0\0\0\4\0\0\0\0\0", 9));
  CHECK(answer.find("the.bound: 3 connections are open; try again later") != std::string::npos);
  CHECK(answer.find(std::string("grpc-status\x01") + "8") != std::string::npos);
  CHECK(acceptor->refused() == 1);
  CHECK(acceptor->CountOpen() == 3);
  {
    std::lock_guard lock(host.mutex);
    host.connections.erase(host.connections.begin());
  }
  ::usleep(20000);
  const UniqueFd next = ConnectTo(acceptor->address());
  CHECK(host.WaitConnections(3));
  CHECK(acceptor->refused() == 1);
}

TEST_CASE("Silent refused connections are closed, however many there are") {
  Host host;
  const auto acceptor = Listening(host.Options("127.0.0.1:0", 1));
  const UniqueFd kept = ConnectTo(acceptor->address());
  REQUIRE(host.WaitConnections(1));
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(ConnectTo(acceptor->address()));
  for (const UniqueFd& client : clients) ReadToEnd(client.get());
  CHECK(acceptor->refused() == 100);
  CHECK(host.connections.size() == 1);
}

TEST_CASE("Input of a refused client does no harm") {
  Host host;
  const auto acceptor = Listening(host.Options("127.0.0.1:0", 1));
  const UniqueFd kept = ConnectTo(acceptor->address());
  REQUIRE(host.WaitConnections(1));
  for (const std::string& junk : {std::string(100000, '\xff'), std::string(24, 'x') + std::string(9, '\xff'),
                                  std::string("GET / HTTP/1.1\r\n\r\n"), std::string(300000, '\0')}) {
    const UniqueFd client = ConnectTo(acceptor->address());
    for (size_t sent = 0; sent < junk.size();) {
      const ssize_t some = ::send(client.get(), junk.data() + sent, junk.size() - sent, MSG_NOSIGNAL);
      if (some <= 0) break;
      sent += static_cast<size_t>(some);
    }
    ReadToEnd(client.get());
  }
  CHECK(acceptor->refused() == 4);
}

}  // namespace
}  // namespace mnemo::link
