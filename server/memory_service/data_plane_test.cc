// The service over shared memory, in one process: results against the reference, isolation, bounds.
#include "server/memory_service/data_plane.h"

#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "devices/transport/shm_channel.h"
#include "server/memory_service/plane_fixture.h"
#include "server/memory_service/random_worker.h"

namespace mnemo::memory_service {
namespace {

using layout::IndexSpec;
using std::chrono::milliseconds;

template <typename Condition>
bool Soon(const Condition& condition) {
  const auto until = Clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

TEST_CASE("random operations give what the reference gives") {
  for (const int threads : {1, 2}) {
    TestPlane service({.threads = threads});
    RandomWorker worker(service.address(), "worker0", static_cast<uint32_t>(threads));
    for (int step = 0; step < 400; ++step) worker.Step();
  }
}

TEST_CASE("several owners at once do not disturb one another, whatever one of them sends") {
  TestPlane service({.threads = 2});
  std::atomic<bool> stop = false;
  std::thread vandal([&] {
    std::mt19937 random(77);
    while (!stop) {
      TestWorker worker(service.address(), "vandal");
      for (int round = 0; round < 50 && !stop && !worker.link->lost(); ++round) {
        const Ring ring = random() % 2 == 0 ? Ring::kBulk : Ring::kQuery;
        std::vector<Descriptor> batch(1 + random() % 8);
        for (Descriptor& d : batch) {
          auto* const words = reinterpret_cast<uint32_t*>(&d);
          for (int w = 0; w < 16; ++w) words[w] = random() % 3 == 0 ? 0 : static_cast<uint32_t>(random());
          d.op = static_cast<uint8_t>(random() % 20);
        }
        if (!worker.link->Submit(ring, batch).ok()) break;
        for (size_t done = 0; done < batch.size();) {
          if (!worker.link->Wait(ring, std::chrono::seconds(20)).ok()) break;
          Completion out[8];
          done += worker.link->Poll(ring, out);
        }
      }
    }
  });
  std::thread other([&] {
    RandomWorker worker(service.address(), "worker1", 11);
    for (int step = 0; step < 200; ++step) worker.Step();
  });
  {
    RandomWorker worker(service.address(), "worker0", 12);
    for (int step = 0; step < 200; ++step) worker.Step();
  }
  other.join();
  stop = true;
  vandal.join();
  CHECK(Soon([&] { return service.plane->Stats().owners.empty(); }));
  CHECK(service.plane->Stats().used_bytes == 0);
}

TEST_CASE("what is refused is named, and the owner goes on") {
  TestPlane service;
  TestWorker worker(service.address(), "worker0");
  const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
  CHECK(worker.Create(3, 1, spec).status == layout::kStatusOk);
  CHECK(worker.Create(3, 1, spec).status == layout::kStatusUnknownIndex);
  IndexSpec wrong = spec;
  wrong.dim = 33;
  Completion done = worker.Create(4, 1, wrong);
  CHECK(done.status == layout::kStatusBadPayload);
  CHECK(done.detail == offsetof(IndexSpec, dim));
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  done = worker.RunOne(Ring::kBulk, d);
  CHECK(done.status == layout::kStatusBadField);
  CHECK(done.detail == offsetof(Descriptor, op));
  d.op = layout::kOpFree;
  d.index_id = 1024;
  done = worker.RunOne(Ring::kBulk, d);
  CHECK(done.detail == offsetof(Descriptor, index_id));
  d.index_id = 3;
  d.index_generation = 9;
  CHECK(worker.RunOne(Ring::kBulk, d).status == layout::kStatusStaleGeneration);
  d.index_generation = 1;
  CHECK(worker.RunOne(Ring::kBulk, d).status == layout::kStatusOk);
  const std::vector<OwnerStats> owners = service.plane->Stats().owners;
  REQUIRE(owners.size() == 1);
  CHECK(owners[0].operations == 7);
  CHECK(owners[0].refused == 5);
}

// A worker that writes epoch and seq as it likes.
TEST_CASE("a stale epoch and a gap in the sequence are refused") {
  TestPlane service;
  absl::StatusOr<UniqueFd> socket = transport::ConnectUnix(service.socket);
  REQUIRE(socket.ok());
  const auto deadline = Clock::now() + std::chrono::seconds(10);
  transport::AttachRequest request{};
  request.hello = layout::NewHello();
  transport::SetFixedText("worker0", request.owner);
  REQUIRE(transport::SendAll(socket->get(), std::as_bytes(std::span(&request, 1)), deadline).ok());
  transport::AttachReply reply;
  UniqueFd memory;
  REQUIRE(
      transport::ReceiveAll(socket->get(), std::as_writable_bytes(std::span(&reply, 1)), deadline, &memory)
          .ok());
  absl::StatusOr<transport::Region> region =
      transport::Region::Map(std::move(memory), "worker0", reply.region_length, reply.region_key);
  REQUIRE(region.ok());
  transport::ShmChannel channel(std::move(*region), std::move(*socket));
  const transport::RegionPlan plan = transport::PlanRegion(reply.hello);
  transport::RingProducer requests(channel, plan.requests[0], plan.slots[0]);
  transport::RingConsumer completions(channel, plan.completions[0], plan.slots[0]);
  const auto send = [&](uint32_t seq, uint16_t epoch) {
    Descriptor d{};
    d.op = layout::kOpFree;
    d.seq = seq;
    d.epoch = epoch;
    REQUIRE(requests.Put(std::span<const Descriptor>(&d, 1)).ok());
    Completion done{};
    REQUIRE(Soon([&] { return completions.Ready(); }));
    REQUIRE(*completions.Take(std::span<Completion>(&done, 1)) == 1);
    CHECK(done.seq == seq);
    return done.status;
  };
  const uint16_t epoch = reply.hello.epoch;
  CHECK(send(1, epoch) == layout::kStatusUnknownIndex);
  CHECK(send(2, static_cast<uint16_t>(epoch - 1)) == layout::kStatusStaleEpoch);
  CHECK(send(3, epoch) == layout::kStatusUnknownIndex);
  CHECK(send(5, epoch) == layout::kStatusBadSequence);
  CHECK(send(6, epoch) == layout::kStatusBadSequence);
}

TEST_CASE("a full quota refuses and changes nothing; another owner has its own") {
  TestPlane service({.memory_bytes = 64 << 20, .max_owners = 4});
  TestWorker worker(service.address(), "worker0");
  CHECK(worker.link->granted().quota_bytes == 16 << 20);
  const IndexSpec spec = SpecOf(layout::kFormatCodes8, 4, 4, 64, 1 << 14);
  std::vector<Completion> done;
  for (uint32_t id = 0; id < 8; ++id) done.push_back(worker.Create(id, 1, spec));
  CHECK(done.front().status == layout::kStatusFull);  // one of 16,384 tokens takes more than the quota
  const IndexSpec small = SpecOf(layout::kFormatCodes8, 4, 4, 64, 1 << 12);
  uint32_t made = 0;
  while (worker.Create(made, 1, small).status == layout::kStatusOk) ++made;
  CHECK(made == 3);
  TestWorker other(service.address(), "worker1");
  CHECK(other.Create(0, 1, small).status == layout::kStatusOk);
  Descriptor free{};
  free.op = layout::kOpFree;
  free.index_generation = 1;
  CHECK(worker.RunOne(Ring::kBulk, free).status == layout::kStatusOk);
  CHECK(worker.Create(0, 2, small).status == layout::kStatusOk);
}

TEST_CASE("owners are bounded, quotas can be set, and ends free everything") {
  TestPlane service({.memory_bytes = 100 << 20, .max_owners = 2});
  REQUIRE(service.plane->SetQuota("worker1", 30 << 20).ok());
  CHECK(service.plane->SetQuota("worker1", 200 << 20).code() == absl::StatusCode::kResourceExhausted);
  auto first = std::make_unique<TestWorker>(service.address(), "worker0");
  TestWorker second(service.address(), "worker1");
  CHECK(first->link->granted().quota_bytes == 50 << 20);
  CHECK(second.link->granted().quota_bytes == 30 << 20);
  CHECK(first->link->granted().epoch != second.link->granted().epoch);
  const absl::Status third = AttachTo(service.address(), "worker2").status();
  CHECK(third.code() == absl::StatusCode::kResourceExhausted);
  CHECK(third.message().find("max_owners: 2 are attached, 2 are allowed") != absl::string_view::npos);
  CHECK(first->Create(0, 1, SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024)).status == layout::kStatusOk);
  CHECK(service.plane->Stats().indexes == 1);
  first.reset();
  REQUIRE(Soon([&] { return service.plane->Stats().owners.size() == 1; }));
  CHECK(service.plane->Stats().lost_owners == 1);
  CHECK(service.plane->Stats().indexes == 0);
  CHECK(AttachTo(service.address(), "worker2").ok());
}

TEST_CASE("an owner that takes the place of one that has just gone has its whole quota") {
  TestPlane service({.memory_bytes = 64 << 20, .quota_bytes = 64 << 20, .max_owners = 2});
  for (int i = 0; i < 30; ++i) {
    TestWorker worker(service.address(), "worker0");
    CHECK(worker.link->granted().quota_bytes == 64 << 20);
  }
  TestWorker worker(service.address(), "worker0");
  const absl::Status other = AttachTo(service.address(), "worker1").status();
  CHECK(other.code() == absl::StatusCode::kResourceExhausted);
  CHECK(other.message().find("memory_bytes: all of 67108864 are granted") != absl::string_view::npos);
}

TEST_CASE("draining refuses new indexes and owners, and what is there goes on") {
  TestPlane service;
  TestWorker worker(service.address(), "worker0");
  const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
  REQUIRE(worker.Create(0, 1, spec).status == layout::kStatusOk);
  service.plane->Drain(true);
  uint32_t id = 1;
  REQUIRE(Soon([&] { return worker.Create(id++, 1, spec).status == layout::kStatusDraining; }));
  CHECK(AttachTo(service.address(), "worker1").status().code() == absl::StatusCode::kUnavailable);
  std::mt19937 random(1);
  const std::vector<float> keys = RandomFloats(random, 64 * 32);
  CHECK(worker.RunOne(Ring::kBulk, worker.AppendOf(0, 1, spec, 0, 64, keys)).status == layout::kStatusOk);
  service.plane->Drain(false);
  CHECK(Soon([&] { return worker.Create(id++, 1, spec).status == layout::kStatusOk; }));
}

TEST_CASE("an owner that is dropped sees its connection close") {
  TestPlane service;
  TestWorker worker(service.address(), "worker0");
  TestWorker other(service.address(), "worker1");
  CHECK(service.plane->Drop("nobody", 0) == 0);
  CHECK(service.plane->Drop("worker0", 9999) == 0);
  CHECK(service.plane->Drop("worker0", worker.link->granted().epoch) == 1);
  CHECK(worker.link->Wait(Ring::kQuery, std::chrono::seconds(30)).code() == absl::StatusCode::kUnavailable);
  CHECK(!other.link->lost());
}

TEST_CASE("queries of the same owner are answered while a long append is under way") {
  TestPlane service({.memory_bytes = uint64_t{1} << 30, .max_owners = 1}, 64 << 20);
  TestWorker worker(service.address(), "worker0");
  const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 512, 1 << 16);
  REQUIRE(worker.Create(0, 1, spec).status == layout::kStatusOk);
  const uint32_t tokens = static_cast<uint32_t>(worker.link->payload_area(Ring::kBulk).bytes.size() /
                                                (512 * sizeof(float)) / 64 * 64);
  std::mt19937 random(1);
  const std::vector<float> keys = RandomFloats(random, size_t{tokens} * 512);
  Descriptor query{};
  query.op = layout::kOpScoreSelect;
  query.index_generation = 1;
  query.heads = query.queries = 1;
  query.select_op = layout::kSelectLatest;
  query.format = layout::kFormatCodes2;
  query.k = 1;
  query.result_offset = static_cast<uint32_t>(worker.link->result_area().offset_bytes / 64);
  query.result_length = 1;
  // The append goes first and takes a hundred slices. That this thread is put aside for all of them is a
  // chance, ten times in a row is not.
  bool overtaken = false;
  for (int attempt = 0; attempt < 10 && !overtaken; ++attempt) {
    std::vector<Descriptor> append = {worker.AppendOf(0, 1, spec, 0, tokens, keys)};
    REQUIRE(worker.link->Submit(Ring::kBulk, append).ok());
    REQUIRE(worker.RunOne(Ring::kQuery, query).status == layout::kStatusOk);
    Completion done{};
    overtaken = worker.link->Poll(Ring::kBulk, std::span(&done, 1)) == 0;
    if (overtaken) {
      REQUIRE(worker.link->Wait(Ring::kBulk, std::chrono::seconds(30)).ok());
      REQUIRE(worker.link->Poll(Ring::kBulk, std::span(&done, 1)) == 1);
    }
    REQUIRE(done.status == layout::kStatusOk);
    Descriptor truncate{};
    truncate.op = layout::kOpTruncate;
    truncate.index_generation = 1;
    REQUIRE(worker.RunOne(Ring::kBulk, truncate).status == layout::kStatusOk);
  }
  CHECK(overtaken);
}

TEST_CASE("a worker that is killed is forgotten with all its indexes") {
  const std::string socket = TestSocket();
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  // The worker is another process, made before there are threads here.
  const pid_t child = ::fork();
  if (child == 0) {
    absl::StatusOr<std::unique_ptr<transport::MemoryAttachment>> link = AttachTo("unix:" + socket, "worker0");
    while (!link.ok()) {
      std::this_thread::sleep_for(milliseconds(2));
      link = AttachTo("unix:" + socket, "worker0");
    }
    (*link).reset();
    TestWorker worker("unix:" + socket, "worker0");
    const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
    MNEMO_CHECK(worker.Create(0, 1, spec).status == layout::kStatusOk);
    MNEMO_CHECK(::write(ready[1], "x", 1) == 1);
    while (true) worker.Create(0, 1, spec);
  }
  absl::StatusOr<std::unique_ptr<DataPlane>> plane = DataPlane::Create({.region_bytes = 1 << 20});
  REQUIRE(plane.ok());
  const auto listener = transport::Listener::Create(socket, (*plane)->device_name(), plane->get());
  REQUIRE(listener.ok());
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK((*plane)->Stats().indexes == 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(Soon([&] { return (*plane)->Stats().owners.empty(); }));
  CHECK((*plane)->Stats().lost_owners == 1);
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace mnemo::memory_service
