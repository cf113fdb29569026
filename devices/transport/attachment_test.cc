// Both ends of an attachment through the handshake: normal operation, and the effects of a broken or dead
// peer.
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "devices/transport/attachment_fixture.h"
#include "devices/transport/listener.h"
#include "devices/transport/memory_attachment.h"
#include "devices/transport/region.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST_CASE("granted limits are reported, and the region is divided") {
  const std::string path = SocketPath();
  EchoService service(path);
  AttachOptions options = Options(path);
  options.wanted.region_bytes = 100000;
  options.wanted.query_slots = 50;
  options.wanted.ops = 0xFF;
  const absl::StatusOr<std::unique_ptr<MemoryAttachment>> attached = Attach(options);
  REQUIRE(attached.ok());
  const MemoryAttachment& attachment = **attached;
  CHECK(attachment.device_name() == "memory0:test");
  CHECK(attachment.granted().epoch == 7);
  CHECK(attachment.granted().region_bytes == 98304);
  CHECK(attachment.granted().query_slots == 32);
  CHECK(attachment.granted().bulk_slots == 16);
  CHECK(attachment.granted().ops == 0xFF);
  CHECK(attachment.granted().quota_bytes == 1 << 30);
  CHECK(attachment.credits(Ring::kBulk) == 16);
  CHECK(attachment.credits(Ring::kQuery) == 32);
  const Area& bulk = attachment.payload_area(Ring::kBulk);
  const Area& query = attachment.payload_area(Ring::kQuery);
  const Area& results = attachment.result_area();
  CHECK(bulk.offset_bytes == 0);
  CHECK(query.offset_bytes == bulk.bytes.size());
  CHECK(results.offset_bytes + results.bytes.size() == 98304);
  CHECK(bulk.bytes.size() / 1024 == 48);
  CHECK(reinterpret_cast<uintptr_t>(results.bytes.data()) % 64 == 0);
}

TEST_CASE("payloads arrive, and results return before their completion") {
  const std::string path = SocketPath();
  EchoService service(path);
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attached = Attach(Options(path));
  REQUIRE(attached.ok());
  MemoryAttachment& attachment = **attached;
  std::mt19937 random(5);
  uint32_t next_seq[2] = {kFirstSeq, kFirstSeq};
  for (int round = 0; round < 3000; ++round) {
    const Ring ring = random() % 4 == 0 ? Ring::kBulk : Ring::kQuery;
    const Area& payload = attachment.payload_area(ring);
    const Area& results = attachment.result_area();
    const uint32_t count = 1 + random() % attachment.credits(ring);
    std::vector<Descriptor> batch(count);
    for (uint32_t i = 0; i < count; ++i) {
      Descriptor& d = batch[i];
      d.k = static_cast<uint32_t>(random());
      d.payload_offset = static_cast<uint32_t>(payload.offset_bytes / 64 + i);
      d.payload_length = d.result_length = 1;
      d.result_offset = static_cast<uint32_t>(results.offset_bytes / 64 + i);
      std::memset(payload.bytes.data() + i * 64, static_cast<int>(d.k), 64);
    }
    REQUIRE(attachment.Submit(ring, batch).ok());
    for (uint32_t done = 0; done < count;) {
      REQUIRE(attachment.Wait(ring, std::chrono::seconds(20)).ok());
      Completion out[7];
      const size_t got = attachment.Poll(ring, out);
      for (size_t i = 0; i < got; ++i, ++done) {
        REQUIRE(out[i].seq == next_seq[RingIndex(ring)]++);
        REQUIRE(out[i].count == batch[done].k);
        REQUIRE(out[i].index_id == attachment.granted().epoch);
        for (int b = 0; b < 64; ++b) {
          REQUIRE(results.bytes[done * 64 + b] == static_cast<uint8_t>(batch[done].k + 1));
        }
      }
    }
    if (round % 500 == 0) std::this_thread::sleep_for(milliseconds(2));  // both ends fall asleep
  }
}

TEST_CASE("a batch larger than the credits is refused whole") {
  const std::string path = SocketPath();
  TestHost host;
  const absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment = Attach(Options(path));
  REQUIRE(attachment.ok());
  const std::unique_ptr<ServiceAttachment> service = host.Next();
  std::vector<Descriptor> batch(17);
  CHECK((*attachment)->Submit(Ring::kBulk, batch).code() == absl::StatusCode::kResourceExhausted);
  CHECK((*attachment)->credits(Ring::kBulk) == 16);
  REQUIRE((*attachment)->Submit(Ring::kBulk, std::span(batch).subspan(0, 16)).ok());
  CHECK((*attachment)->credits(Ring::kBulk) == 0);
  // Taking a descriptor frees its slot, but a credit returns only when its completion is polled.
  Descriptor taken[64];
  CHECK(*service->Take(Ring::kBulk, taken) == 16);
  CHECK((*attachment)->credits(Ring::kBulk) == 0);
  CHECK((*attachment)->Submit(Ring::kBulk, std::span(batch).subspan(0, 1)).code() ==
        absl::StatusCode::kResourceExhausted);
  const std::vector<Completion> done(16);
  REQUIRE(service->Complete(Ring::kBulk, std::span(done).subspan(0, 5)).ok());
  CHECK((*attachment)->credits(Ring::kBulk) == 0);
  Completion out[3];
  CHECK((*attachment)->Poll(Ring::kBulk, out) == 3);
  CHECK((*attachment)->credits(Ring::kBulk) == 3);
}

TEST_CASE("a silent service gives an error at the deadline, and the ring accepts no more") {
  const std::string path = SocketPath();
  TestHost host;
  const absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment = Attach(Options(path));
  REQUIRE(attachment.ok());
  std::vector<Descriptor> batch(1);
  REQUIRE((*attachment)->Submit(Ring::kQuery, batch).ok());
  CHECK((*attachment)->Wait(Ring::kQuery, milliseconds(30)).code() == absl::StatusCode::kDeadlineExceeded);
  CHECK((*attachment)->Submit(Ring::kQuery, batch).code() == absl::StatusCode::kFailedPrecondition);
  CHECK(!(*attachment)->lost());
}

TEST_CASE("incompatible peers are reported with both values") {
  const std::string path = SocketPath();
  TestHost host;
  const absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  const auto refused = [&](const std::function<void(AttachOptions&)>& change) {
    AttachOptions options = Options(path);
    change(options);
    const absl::Status status = Attach(options).status();
    return std::make_pair(status.code(), std::string(status.message()));
  };
  auto [code, message] = refused([](AttachOptions& o) { o.wanted.abi_major = 99; });
  CHECK(code == absl::StatusCode::kFailedPrecondition);
  CHECK(message.find("abi_major: here 99, the peer has 1") != std::string::npos);
  std::tie(code, message) = refused([](AttachOptions& o) { o.wanted.layout_hash ^= 1; });
  CHECK(message.find("layout_hash") != std::string::npos);
  std::tie(code, message) = refused([](AttachOptions& o) { o.wanted.quantiser_id = 5; });
  CHECK(message.find("quantiser_id: here 0x5") != std::string::npos);
  std::tie(code, message) = refused([](AttachOptions& o) { o.wanted.placement = 1; });
  CHECK(message.find("placement: wanted 1, the service has 0") != std::string::npos);
  std::tie(code, message) = refused([](AttachOptions& o) { o.owner = "unwanted"; });
  CHECK(code == absl::StatusCode::kResourceExhausted);
  CHECK(message.find("owners: 1 attached, 1 allowed") != std::string::npos);
  std::tie(code, message) = refused([](AttachOptions& o) { o.owner = ""; });
  CHECK(code == absl::StatusCode::kInvalidArgument);
  std::tie(code, message) = refused([](AttachOptions& o) { o.address = "unix:/nonexistent/socket"; });
  CHECK(code == absl::StatusCode::kUnavailable);
  std::tie(code, message) = refused([](AttachOptions& o) { o.address = "carrier:pigeon"; });
  CHECK(code == absl::StatusCode::kInvalidArgument);
  // The listener still serves after all of them.
  CHECK(Attach(Options(path)).ok());
}

TEST_CASE("silent, partial or malformed connections do not delay others") {
  const std::string path = SocketPath();
  TestHost host;
  const absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  std::vector<UniqueFd> silent;
  std::mt19937 random(3);
  for (int i = 0; i < 10; ++i) {
    absl::StatusOr<UniqueFd> socket = ConnectUnix(path);
    REQUIRE(socket.ok());
    std::vector<uint8_t> bytes(i % 3 == 0 ? 0 : i % 3 == 1 ? 100 : 192);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    CHECK(::send(socket->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(bytes.size()));
    silent.push_back(std::move(*socket));
  }
  CHECK(Attach(Options(path)).ok());
}

TEST_CASE("one listener at a path; a dead one's socket is replaced") {
  const std::string path = SocketPath();
  TestHost host;
  {
    const absl::StatusOr<std::unique_ptr<Listener>> first = Listener::Create(path, "memory", &host);
    REQUIRE(first.ok());
    CHECK(Listener::Create(path, "memory", &host).status().code() == absl::StatusCode::kUnavailable);
  }
  CHECK(::access(path.c_str(), F_OK) != 0);
  const pid_t child = ::fork();
  if (child == 0) {
    TestHost own;
    const auto dying = Listener::Create(path, "memory", &own);
    ::raise(SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  REQUIRE(::access(path.c_str(), F_OK) == 0);
  CHECK(Listener::Create(path, "memory", &host).ok());
}

// Runs body in a separate process.
pid_t Spawn(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  return child;
}

absl::StatusOr<std::unique_ptr<MemoryAttachment>> AttachSoon(const std::string& path) {
  const auto until = steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment = Attach(Options(path));
    if (attachment.ok() || steady_clock::now() > until) return attachment;
    std::this_thread::sleep_for(milliseconds(5));
  }
}

TEST_CASE("a killed service is detected by a waiting worker, and by one that does not wait") {
  for (const bool waits : {true, false}) {
    const std::string path = SocketPath();
    const pid_t child = Spawn([&] {
      TestHost host;
      const auto listener = Listener::Create(path, "memory", &host);
      MNEMO_CHECK(listener.ok());
      ::sleep(60);
    });
    absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment = AttachSoon(path);
    REQUIRE(attachment.ok());
    std::vector<Descriptor> batch(1);
    REQUIRE((*attachment)->Submit(Ring::kQuery, batch).ok());
    steady_clock::time_point killed_at;
    if (waits) {
      std::thread killer([&] {
        std::this_thread::sleep_for(milliseconds(30));
        killed_at = steady_clock::now();
        ::kill(child, SIGKILL);
      });
      CHECK((*attachment)->Wait(Ring::kQuery, std::chrono::seconds(60)).code() ==
            absl::StatusCode::kUnavailable);
      killer.join();
    } else {
      killed_at = steady_clock::now();
      ::kill(child, SIGKILL);
      while (!(*attachment)->lost()) std::this_thread::yield();
    }
    WARN("noticed after "
         << std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - killed_at).count()
         << " us");
    ::waitpid(child, nullptr, 0);
    CHECK((*attachment)->lost());
    CHECK((*attachment)->Submit(Ring::kQuery, batch).code() == absl::StatusCode::kUnavailable);
    (*attachment)->payload_area(Ring::kBulk).bytes[0] = 1;  // the memory stays mapped
    ::unlink(path.c_str());
  }
}

TEST_CASE("a killed worker is detected by a sleeping service") {
  const std::string path = SocketPath();
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = Spawn([&] {
    const auto attachment = AttachSoon(path);
    MNEMO_CHECK(attachment.ok());
    MNEMO_CHECK(::write(ready[1], "x", 1) == 1);
    ::sleep(60);
  });
  TestHost host;
  const auto listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  const std::unique_ptr<ServiceAttachment> attachment = host.Next();
  CHECK(attachment->attached().pid == child);
  CHECK(attachment->attached().owner == "worker0");
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(!attachment->lost(true));
  ::kill(child, SIGKILL);
  ServeLoop(*attachment, [] { return true; });
  CHECK(attachment->lost());
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

// A hostile worker: it has the region and the socket and writes arbitrary data.
TEST_CASE("the service stays within its memory, whatever a worker writes into rings and headers") {
  const std::string path = SocketPath();
  TestHost host;
  const auto listener = Listener::Create(path, "memory", &host);
  REQUIRE(listener.ok());
  for (uint32_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    absl::StatusOr<UniqueFd> socket = ConnectUnix(path);
    REQUIRE(socket.ok());
    const Deadline deadline = steady_clock::now() + std::chrono::seconds(10);
    AttachRequest request{};
    request.hello = layout::NewHello();
    SetFixedText("worker0", request.owner);
    REQUIRE(SendAll(socket->get(), std::as_bytes(std::span(&request, 1)), deadline).ok());
    AttachReply reply;
    UniqueFd memory;
    REQUIRE(ReceiveAll(socket->get(), std::as_writable_bytes(std::span(&reply, 1)), deadline, &memory).ok());
    REQUIRE(reply.status == 0);
    absl::StatusOr<Region> region = Region::Map(std::move(memory), "x", reply.region_length, 0);
    REQUIRE(region.ok());
    const RegionPlan plan = PlanRegion(reply.hello);
    const std::unique_ptr<ServiceAttachment> attachment = host.Next();
    std::mt19937 random(seed);
    bool broken = false;
    for (int step = 0; step < 100 && !broken; ++step) {
      if (random() % 2 == 0) {  // a plausible index
        const uint32_t value = random() % 80;
        const uint64_t ring =
            random() % 2 == 0 ? plan.requests[random() % 2] : plan.completions[random() % 2];
        std::memcpy(region->bytes().data() + ring + 64 * (1 + random() % 3), &value, sizeof value);
      } else {
        const uint32_t value = static_cast<uint32_t>(random());
        std::memcpy(region->bytes().data() + random() % (plan.data / 4) * 4, &value, sizeof value);
      }
      const Ring ring = random() % 2 == 0 ? Ring::kBulk : Ring::kQuery;
      Descriptor taken[64];
      const absl::StatusOr<uint32_t> count = attachment->Take(ring, taken);
      broken = !count.ok();
      if (broken) continue;
      REQUIRE(*count <= 64);
      const std::vector<Completion> done(attachment->under_way(ring));
      broken = !attachment->Complete(ring, done).ok();
    }
  }
}

TEST_CASE("a broken service gives an error, not a crash") {
  const std::string path = SocketPath();
  for (uint32_t seed = 0; seed < 100; ++seed) {
    INFO("seed " << seed);
    TestHost host;
    const auto listener = Listener::Create(path, "memory", &host);
    REQUIRE(listener.ok());
    absl::StatusOr<std::unique_ptr<MemoryAttachment>> attachment = Attach(Options(path));
    REQUIRE(attachment.ok());
    const std::unique_ptr<ServiceAttachment> service = host.Next();
    const RegionPlan plan = PlanRegion((*attachment)->granted());
    auto* const bytes = service->data().data() - plan.data;
    std::mt19937 random(seed);
    for (int step = 0; step < 50; ++step) {
      const uint32_t value = random() % 2 == 0 ? random() % 80 : static_cast<uint32_t>(random());
      std::memcpy(bytes + random() % (plan.data / 4) * 4, &value, sizeof value);
      const uint64_t ring = random() % 2 == 0 ? plan.requests[1] : plan.completions[1];
      if (random() % 2 == 0) std::memcpy(bytes + ring + 64 * (1 + random() % 2), &value, sizeof value);
      std::vector<Descriptor> batch(random() % 3);
      const absl::StatusCode code = (*attachment)->Submit(Ring::kQuery, batch).code();
      CHECK((code == absl::StatusCode::kOk || code == absl::StatusCode::kUnavailable ||
             code == absl::StatusCode::kResourceExhausted));
      Completion out[8];
      CHECK((*attachment)->Poll(Ring::kQuery, out) <= 8);
      CHECK((*attachment)->credits(Ring::kQuery) <= 64);
    }
  }
}

}  // namespace
}  // namespace mnemo::transport
