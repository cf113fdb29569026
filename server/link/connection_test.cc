#include "server/link/connection.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "mnemo/internal/worker.pb.h"
#include "server/link/socket.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_folder.h"

namespace mnemo::link {
namespace {

using internal::v1::FromWorker;
using internal::v1::ToWorker;
using mnemo::testing::kPatience;

// A connection at one end, and a raw socket at the other for misuse.
struct Ends {
  Ends() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    peer = UniqueFd(fds[1]);
    connection = std::make_unique<Connection>(UniqueFd(fds[0]), [this] {
      std::lock_guard lock(mutex);
      ++writes_finished;
      changed.notify_all();
    });
  }
  void Send(std::string_view bytes) const {
    REQUIRE(::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  bool WaitForWrites(int count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, [&] { return writes_finished >= count; });
  }
  UniqueFd peer;
  std::mutex mutex;
  std::condition_variable changed;
  int writes_finished = 0;
  std::unique_ptr<Connection> connection;
};

std::string Frame(const google::protobuf::MessageLite& message) {
  std::string bytes;
  REQUIRE(AppendFrame(message, &bytes).ok());
  return bytes;
}

ToWorker MakeCancel(uint64_t id) {
  ToWorker message;
  message.mutable_cancel()->set_id(id);
  return message;
}

TEST_CASE("messages arrive whole from pieces") {
  Ends ends;
  const std::string bytes = Frame(MakeCancel(1)) + Frame(MakeCancel(300));
  std::thread writer([&] {
    for (const char byte : bytes) ::send(ends.peer.get(), &byte, 1, MSG_NOSIGNAL);
  });
  ToWorker message;
  CHECK(ends.connection->Read(&message).ok());
  CHECK(message.cancel().id() == 1);
  CHECK(ends.connection->Read(&message).ok());
  CHECK(message.cancel().id() == 300);
  writer.join();
}

TEST_CASE("an invalid message ends the reading with its error") {
  Ends ends;
  ToWorker message;
  SECTION("another protocol") {
    ends.Send("GET / HTTP/1.1\r\n\r\n");
    const absl::Status status = ends.connection->Read(&message);
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("bytes"));
  }
  SECTION("a frame that does not parse") {
    ends.Send(std::string("\x03\0\0\0\xff\xff\xff", 7));
    const absl::Status status = ends.connection->Read(&message);
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains("ToWorker"));
  }
  SECTION("a peer that goes in the middle of a frame") {
    ends.Send(Frame(MakeCancel(5)).substr(0, 5));
    ends.peer.Reset();
    CHECK(absl::IsUnavailable(ends.connection->Read(&message)));
  }
  SECTION("a peer that says nothing in time") {
    ends.connection->SetReadTimeout(20);
    CHECK(absl::IsDeadlineExceeded(ends.connection->Read(&message)));
  }
}

TEST_CASE("data written before the end of a connection arrives") {
  Ends ends;
  const std::string bytes = Frame(MakeCancel(7));
  ends.Send("never read");
  CHECK(ends.connection->Write(bytes));
  ends.connection.reset();
  std::string got(100, '\0');
  REQUIRE(::recv(ends.peer.get(), got.data(), got.size(), 0) == static_cast<ssize_t>(bytes.size()));
  CHECK(got.substr(0, bytes.size()) == bytes);
  CHECK(::recv(ends.peer.get(), got.data(), got.size(), 0) <= 0);
}

TEST_CASE("a peer that does not read blocks no writer") {
  Ends ends;
  ToWorker large;
  for (int i = 0; i < 1'000'000; ++i) large.mutable_submit()->add_prompt(i);
  const std::string bytes = Frame(large);
  REQUIRE_FALSE(ends.connection->Write(bytes));  // returns at once
  SECTION("and gets all once it reads") {
    std::string got;
    std::array<char, 65536> piece;
    while (got.size() < bytes.size()) {
      const ssize_t count = ::recv(ends.peer.get(), piece.data(), piece.size(), 0);
      REQUIRE(count > 0);
      got.append(piece.data(), static_cast<size_t>(count));
    }
    CHECK(got == bytes);
    CHECK(ends.WaitForWrites(1));
    CHECK_FALSE(ends.connection->Write(bytes));  // uses the same thread again
  }
  SECTION("or is broken off") {
    ends.connection->Break();
    CHECK(ends.WaitForWrites(1));
    ToWorker message;
    CHECK(absl::IsUnavailable(ends.connection->Read(&message)));
    CHECK(ends.connection->Write(bytes));  // dropped
  }
  SECTION("or dies") {
    ends.peer.Reset();
    CHECK(ends.WaitForWrites(1));
    CHECK(ends.connection->Write(bytes));
  }
  ends.connection.reset();
}

TEST_CASE("the end of a pending write may start the next one") {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd peer(fds[1]);
  const std::string bytes(3 << 20, 'x');
  std::unique_ptr<Connection> connection;
  std::atomic<int> left = 3;
  std::promise<void> done;
  connection = std::make_unique<Connection>(UniqueFd(fds[0]), [&] {
    while (left.fetch_sub(1) > 1) {
      if (!connection->Write(bytes)) return;
    }
    done.set_value();
  });
  REQUIRE_FALSE(connection->Write(bytes));
  size_t got = 0;
  std::array<char, 65536> piece;
  while (got < 3 * bytes.size()) {
    const ssize_t count = ::recv(peer.get(), piece.data(), piece.size(), 0);
    REQUIRE(count > 0);
    got += static_cast<size_t>(count);
  }
  CHECK(done.get_future().wait_for(kPatience) == std::future_status::ready);
}

TEST_CASE("addresses") {
  const std::atomic<bool> never = false;
  const mnemo::testing::TempFolder folder;
  const auto message = [](const auto& result) { return std::string(result.status().message()); };
  SECTION("a Unix socket, and one that a process left behind") {
    const std::string address = "unix:" + folder.path("socket");
    CHECK(absl::IsUnavailable(Connect(address, {}, never).status()));
    absl::StatusOr<UniqueFd> first = Listen(address);
    REQUIRE(first.ok());
    CHECK(Connect(address, {}, never).ok());
    CHECK_THAT(message(Listen(address)), Catch::Contains(address) && Catch::Contains("another process"));
    first->Reset();
    CHECK_THAT(message(Connect(address, {}, never)), Catch::Contains(address));
    CHECK(Listen(address).ok());
  }
  SECTION("TCP carries both ways") {
    absl::StatusOr<UniqueFd> listener = Listen("127.0.0.1:0");
    REQUIRE(listener.ok());
    sockaddr_in name = {};
    socklen_t length = sizeof name;
    REQUIRE(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&name), &length) == 0);
    const std::string address = "127.0.0.1:" + std::to_string(ntohs(name.sin_port));
    CHECK_THAT(message(Listen(address)), Catch::Contains(address));
    CHECK(absl::IsNotFound(Accept(listener->get(), {}).status()));
    absl::StatusOr<UniqueFd> client = Connect(address, {}, never);
    REQUIRE(client.ok());
    absl::StatusOr<UniqueFd> server = Accept(listener->get(), {});
    REQUIRE(server.ok());
    Connection one(*std::move(client), [] {}), other(*std::move(server), [] {});
    FromWorker back;
    back.mutable_heartbeat()->set_steps(9);
    CHECK(one.Write(Frame(MakeCancel(8))));
    CHECK(other.Write(Frame(back)));
    ToWorker there;
    REQUIRE(other.Read(&there).ok());
    CHECK(there.cancel().id() == 8);
    REQUIRE(one.Read(&back).ok());
    CHECK(back.heartbeat().steps() == 9);
    one.Break();
    CHECK(absl::IsUnavailable(other.Read(&there)));
  }
  SECTION("what is none") {
    CHECK(absl::IsInvalidArgument(Connect("localhost", {}, never).status()));
    CHECK(absl::IsInvalidArgument(Connect("unix:", {}, never).status()));
    CHECK(absl::IsInvalidArgument(Listen("unix:" + std::string(200, 'x')).status()));
    CHECK(absl::IsUnavailable(Listen("127.0.0.1:many").status()));
  }
}

}  // namespace
}  // namespace mnemo::link
