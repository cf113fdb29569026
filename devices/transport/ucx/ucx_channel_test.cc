#include "devices/transport/ucx/ucx_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace mnemo::transport::ucx {
namespace {

std::vector<std::byte> AddressOf(const UcxChannel& channel) {
  absl::StatusOr<std::vector<std::byte>> address = channel.Address();
  REQUIRE(address.ok());
  return *address;
}

std::unique_ptr<UcxChannel> Make(uint64_t length_bytes) {
  absl::StatusOr<std::unique_ptr<UcxChannel>> channel = UcxChannel::Create(length_bytes);
  REQUIRE(channel.ok());
  return std::move(*channel);
}

UniqueFd WhosePeerHasClosed() {
  int sockets[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  ::close(sockets[1]);
  return UniqueFd(sockets[0]);
}

// Simulates a small, read-only or missing /dev/shm: UCX then fails to make its queues in it.
TEST_CASE("without room for shared memory a channel takes other transports") {
  REQUIRE(::setenv("UCX_POSIX_DIR", "/nonexistent/folder", 1) == 0);
  const std::unique_ptr<UcxChannel> one = Make(1 << 16);
  const std::unique_ptr<UcxChannel> other = Make(1 << 16);
  int sockets[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  REQUIRE(one->Connect(AddressOf(*other), UniqueFd(sockets[0])).ok());
  REQUIRE(other->Connect(AddressOf(*one), UniqueFd(sockets[1])).ok());
  ::unsetenv("UCX_POSIX_DIR");
  const char text[] = "over something else";
  std::memcpy(one->memory().data(), text, sizeof text);
  REQUIRE(one->Write(0, sizeof text).ok());
  for (int i = 0; i < 10'000'000 && std::memcmp(other->memory().data(), text, sizeof text) != 0; ++i) {
    one->Progress();
    other->Progress();
  }
  CHECK(std::memcmp(other->memory().data(), text, sizeof text) == 0);
}

// A worker may be killed at any point of its part of the handshake. UCX may detect it while connecting or
// only when something is sent.
TEST_CASE("a peer that exits after sending its address causes no crash") {
  for (int round = 0; round < 10; ++round) {
    const std::unique_ptr<UcxChannel> stays = Make(1 << 16);
    std::unique_ptr<UcxChannel> leaves = Make(1 << 16);
    const std::vector<std::byte> address = AddressOf(*leaves);
    leaves.reset();
    if (!stays->Connect(address, WhosePeerHasClosed()).ok()) continue;
    CHECK(stays->lost(true));
    CHECK_FALSE(stays->Read(0, 64).ok());
  }
}

TEST_CASE("a peer that exits between connection and memory access causes no crash") {
  const std::unique_ptr<UcxChannel> stays = Make(1 << 16);
  const std::unique_ptr<UcxChannel> there = Make(1 << 16);
  std::unique_ptr<UcxChannel> leaves = Make(1 << 16);
  // The address combines the worker address of a live end and the memory key of an end that is gone.
  UcxChannel::AddressHeader header, of_leaving;
  std::vector<std::byte> address = AddressOf(*there);
  const std::vector<std::byte> leaving = AddressOf(*leaves);
  std::memcpy(&header, address.data(), sizeof header);
  std::memcpy(&of_leaving, leaving.data(), sizeof of_leaving);
  address.resize(sizeof header + header.worker_bytes);
  address.insert(address.end(), leaving.end() - of_leaving.key_bytes, leaving.end());
  header.key_bytes = of_leaving.key_bytes;
  std::memcpy(address.data(), &header, sizeof header);
  leaves.reset();
  (void)stays->Connect(address, WhosePeerHasClosed());
  CHECK(stays->lost(true));
}

TEST_CASE("an address that is truncated or names too little memory is refused") {
  const std::unique_ptr<UcxChannel> large = Make(1 << 17);
  const std::unique_ptr<UcxChannel> small = Make(1 << 16);
  std::vector<std::byte> address = AddressOf(*small);
  CHECK(large->Connect(address, UniqueFd()).code() == absl::StatusCode::kInvalidArgument);
  address.pop_back();
  CHECK(large->Connect(address, UniqueFd()).code() == absl::StatusCode::kInvalidArgument);
  CHECK(large->Connect({}, UniqueFd()).code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mnemo::transport::ucx
