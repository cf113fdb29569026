// The data plane over a device that is late, hangs, fails and loses its memory.
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "devices/memory/testing/late_device.h"
#include "server/memory_service/plane_fixture.h"
#include "server/memory_service/random_worker.h"

namespace mnemo::memory_service {
namespace {

using DeviceOptions = std::vector<std::pair<std::string, std::string>>;

constexpr int kNoTimeout = 600'000;

template <typename Condition>
bool Soon(const Condition& condition) {
  const auto until = Clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

DataPlane::Options Late(DeviceOptions device_options, int operation_timeout_ms = kNoTimeout) {
  memory_device::testing::AddLateKind();
  DataPlane::Options options;
  options.device = "late";
  options.device_options = std::move(device_options);
  options.operation_timeout_ms = operation_timeout_ms;
  options.memory_bytes = 64 << 20;
  return options;
}

// A worker with indexes of two pages each.
struct IndexedWorker : TestWorker {
  IndexedWorker(const std::string& address, const std::string& owner, uint32_t indexes)
      : TestWorker(address, owner) {
    for (uint32_t id = 0; id < indexes; ++id) {
      REQUIRE(Create(id, 1, spec).status == layout::kStatusOk);
      REQUIRE(Append(id, 0).status == layout::kStatusOk);
    }
  }
  Completion Append(uint32_t id, uint32_t begin) {
    std::mt19937 random(id);
    const std::vector<float> keys = RandomFloats(random, 128 * 32);
    return RunOne(Ring::kBulk, AppendOf(id, 1, spec, begin, begin + 128, keys));
  }
  Descriptor Of(uint8_t op, uint32_t id) const {
    Descriptor d{};
    d.op = op;
    d.index_id = id;
    d.index_generation = 1;
    return d;
  }
  Descriptor Query(uint32_t id) const {
    Descriptor d = Of(layout::kOpScoreSelect, id);
    d.heads = d.queries = 1;
    d.select_op = layout::kSelectLatest;
    d.format = layout::kFormatCodes2;
    d.end = 128;
    d.k = 1;
    d.result_offset = static_cast<uint32_t>(link->result_area().offset_bytes / 64);
    d.result_length = 1;
    return d;
  }
  void Send(Ring ring, Descriptor d) { REQUIRE(link->Submit(ring, {&d, 1}).ok()); }
  // The next completion of a ring, also of a link that has ended since.
  Completion Next(Ring ring) {
    Completion done{};
    REQUIRE(Soon([&] { return link->Poll(ring, {&done, 1}) == 1; }));
    return done;
  }
  bool Pending(Ring ring) {
    Completion done{};
    return link->Poll(ring, {&done, 1}) == 0;
  }

  const IndexSpec spec = SpecOf(layout::kFormatCodes2, 1, 1, 32, 1024);
};

TEST_CASE("figures of a device are read while it works, hangs and is reset") {
  TestPlane service(Late({{"counts", "1"}, {"delay_us", "200"}, {"hang_after", "50"}}, 300));
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  std::atomic<uint64_t> most = 0;
  for (int n = 0; n < 3; ++n) {
    readers.emplace_back([&] {
      double jobs = 0;
      while (!stop) {
        const std::vector<memory_device::DeviceCounter> counters = service.plane->DeviceCounters();
        // Catch's macros are for one thread.
        MNEMO_CHECK(counters.size() == 3 && counters[0].name == "device_jobs_total");
        MNEMO_CHECK(counters[0].value >= jobs);
        jobs = counters[0].value;
        if (jobs > static_cast<double>(most)) most = static_cast<uint64_t>(jobs);
      }
    });
  }
  IndexedWorker worker(service.address(), "worker0", 1);
  int done = 0;
  for (int n = 0; n < 60; ++n) {
    done += worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk ? 1 : 0;
  }
  // The one that hung was answered when the device was reset.
  CHECK(done == 59);
  CHECK(Soon([&] { return most >= 59; }));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(service.plane->counters().device_failures == 1);
  CHECK(service.plane->simulated_time());
}

TEST_CASE("completions that come late and in bursts change no result") {
  const DeviceOptions options = GENERATE(DeviceOptions{}, DeviceOptions{{"delay_us", "300"}},
                                         DeviceOptions{{"delay_us", "200"}, {"burst_us", "500"}},
                                         DeviceOptions{{"delay_us", "300"}, {"event", "1"}});
  TestPlane service(Late(options));
  std::thread other([&] {
    RandomWorker worker(service.address(), "worker1", 31);
    for (int step = 0; step < 150; ++step) worker.Step();
  });
  RandomWorker worker(service.address(), "worker0", 32);
  for (int step = 0; step < 150; ++step) worker.Step();
  other.join();
  CHECK(service.plane->counters().device_failures == 0);
}

TEST_CASE("while a device computes, others come, work and go") {
  TestPlane service(Late({{"hang_after", "1"}}));
  IndexedWorker worker(service.address(), "worker0", 2);
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  {
    IndexedWorker other(service.address(), "worker1", 2);
    CHECK(other.RunOne(Ring::kBulk, other.Of(layout::kOpFree, 1)).status == layout::kStatusOk);
    CHECK(service.plane->Stats().owners.size() == 2);
  }
  CHECK(Soon([&] { return service.plane->Stats().owners.size() == 1; }));
  // Its own other index too, and appends to the same one.
  CHECK(worker.RunOne(Ring::kBulk, worker.Of(layout::kOpFree, 1)).status == layout::kStatusOk);
  CHECK(worker.Append(0, 128).status == layout::kStatusOk);
  CHECK(worker.Pending(Ring::kQuery));
}

TEST_CASE("a device that hangs is reset, and what was under way is answered; its indexes may be there") {
  TestPlane service(Late({{"hang_after", "1"}}, 200));
  IndexedWorker worker(service.address(), "worker0", 1);
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  std::vector<Completion> done = worker.Run(Ring::kQuery, {worker.Query(0), worker.Query(0)});
  CHECK(done[0].status == layout::kStatusDeviceFailed);
  CHECK(done[1].status == layout::kStatusDeviceFailed);
  CHECK(service.plane->counters().device_failures == 1);
  CHECK(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  CHECK(worker.RunOne(Ring::kBulk, worker.Of(layout::kOpFree, 0)).status == layout::kStatusOk);
  CHECK(service.plane->Stats().used_bytes == 0);
}

TEST_CASE("what frees an index waits for the operations on it, and for no others") {
  const uint8_t op = GENERATE(uint8_t{layout::kOpFree}, uint8_t{layout::kOpTruncate});
  TestPlane service(Late({{"hang_after", "1"}}, 500));
  IndexedWorker worker(service.address(), "worker0", 2);
  IndexedWorker other(service.address(), "worker1", 2);
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  CHECK(worker.RunOne(Ring::kBulk, worker.Of(op, 1)).status == layout::kStatusOk);
  worker.Send(Ring::kBulk, worker.Of(op, 0));
  CHECK(other.RunOne(Ring::kBulk, other.Of(op, 0)).status == layout::kStatusOk);
  CHECK(worker.Next(Ring::kBulk).status == layout::kStatusOk);
  // The query on the index was answered before.
  CHECK_FALSE(worker.Pending(Ring::kQuery));
}

TEST_CASE("K and V are added while an index is read, and written over when it is not") {
  TestPlane service(Late({{"hang_after", "1"}}, 500));
  IndexedWorker worker(service.address(), "worker0", 0);
  IndexSpec spec = worker.spec;
  spec.kv_format = layout::kFormatF16;
  REQUIRE(worker.Create(0, 1, spec).status == layout::kStatusOk);
  REQUIRE(worker.Append(0, 0).status == layout::kStatusOk);
  const auto store = [&](uint32_t begin, uint32_t end) {
    Descriptor d = worker.Of(layout::kOpKvStore, 0);
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = 1;
    d.format = layout::kFormatF16;
    d.begin = begin;
    d.end = end;
    d.payload_offset = static_cast<uint32_t>(worker.link->payload_area(Ring::kBulk).offset_bytes / 64);
    d.payload_length = (end - begin) * 2;  // tokens of 128 bytes
    return d;
  };
  REQUIRE(worker.RunOne(Ring::kBulk, store(0, 64)).status == layout::kStatusOk);
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  CHECK(worker.RunOne(Ring::kBulk, store(64, 128)).status == layout::kStatusOk);
  worker.Send(Ring::kBulk, store(32, 96));
  CHECK(worker.Next(Ring::kBulk).status == layout::kStatusOk);
  CHECK_FALSE(worker.Pending(Ring::kQuery));
}

TEST_CASE("a device that loses its memory ends the attachments with indexes, once") {
  TestPlane service(Late({{"hang_after", "1"}, {"lose", "1"}}, 200));
  IndexedWorker worker(service.address(), "worker0", 2);
  IndexedWorker other(service.address(), "worker1", 1);
  TestWorker empty(service.address(), "worker2");
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  worker.Send(Ring::kBulk, worker.Of(layout::kOpFree, 0));
  CHECK(worker.Next(Ring::kQuery).status == layout::kStatusDeviceFailed);
  CHECK(Soon([&] { return worker.link->lost() && other.link->lost(); }));
  CHECK(Soon([&] { return service.plane->Stats().owners.size() == 1; }));
  CHECK(service.plane->Stats().lost_owners == 2);
  CHECK(service.plane->counters().device_failures == 1);
  CHECK(empty.Create(0, 1, worker.spec).status == layout::kStatusOk);
  RandomWorker again(service.address(), "worker0", 5);
  for (int step = 0; step < 60; ++step) again.Step();
}

TEST_CASE("an append or K and V that do not arrive fail, and the index goes on") {
  TestPlane service(Late({{"hang_uploads", "2"}}, 200));
  IndexedWorker worker(service.address(), "worker0", 1);  // two pages
  CHECK(worker.Append(0, 128).status == layout::kStatusDeviceFailed);
  CHECK(service.plane->counters().device_failures == 1);
  const Completion done = worker.Append(0, 128);
  CHECK(done.status == layout::kStatusOk);
  CHECK(done.watermark == 256);
  CHECK(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
}

TEST_CASE("an owner that dies keeps its memory until the device has finished with it") {
  const std::string lose = GENERATE("0", "1");
  TestPlane service(Late({{"hang_after", "1"}, {"lose", lose}}, 300));
  {
    IndexedWorker worker(service.address(), "worker0", 2);
    REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
    worker.Send(Ring::kQuery, worker.Query(0));
    // Taken, since what comes by the other ring is answered.
    REQUIRE(worker.RunOne(Ring::kBulk, worker.Of(layout::kOpTruncate, 1)).status == layout::kStatusOk);
  }
  CHECK(Soon([&] { return service.plane->Stats().owners.empty(); }));
  CHECK(service.plane->counters().device_failures == 1);
  CHECK(service.plane->Stats().used_bytes == 0);
  RandomWorker again(service.address(), "worker0", 6);
  for (int step = 0; step < 30; ++step) again.Step();
}

TEST_CASE("a device that cannot be reset takes no owners until it can") {
  TestPlane service(Late({{"hang_after", "1"}, {"broken_resets", "1"}}, 200));
  IndexedWorker worker(service.address(), "worker0", 1);
  TestWorker empty(service.address(), "worker1");
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  CHECK(worker.Next(Ring::kQuery).status == layout::kStatusDeviceFailed);
  CHECK(Soon([&] { return service.plane->Stats().owners.empty(); }));
  CHECK(Soon([&] { return AttachTo(service.address(), "worker0").ok(); }));
  RandomWorker again(service.address(), "worker0", 7);
  for (int step = 0; step < 30; ++step) again.Step();
}

TEST_CASE("a service ends while its device hangs") {
  auto service = std::make_unique<TestPlane>(Late({{"hang_after", "1"}}));
  IndexedWorker worker(service->address(), "worker0", 1);
  REQUIRE(worker.RunOne(Ring::kQuery, worker.Query(0)).status == layout::kStatusOk);
  worker.Send(Ring::kQuery, worker.Query(0));
  REQUIRE(worker.Append(0, 128).status == layout::kStatusOk);
  service.reset();
  CHECK(Soon([&] { return worker.link->lost(); }));
}

TEST_CASE("what an attachment is granted is what the device has") {
  TestPlane service(Late({{"without", "gather,kv,cascade"}}));
  TestWorker worker(service.address(), "worker0");
  const layout::AttachHello& granted = worker.link->granted();
  CHECK(granted.cascade == 0);
  CHECK((granted.ops >> layout::kOpGather & 1) == 0);
  CHECK((granted.ops >> layout::kOpKvStore & 1) == 0);
  CHECK((granted.ops >> layout::kOpScoreSelect & 1) == 1);
}

}  // namespace
}  // namespace mnemo::memory_service
