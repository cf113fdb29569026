// Requirements on every implementation of Channel, and on rings over it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "devices/base/wait.h"
#include "devices/transport/channel.h"
#include "devices/transport/channel_pairs.h"
#include "devices/transport/rings.h"

namespace mnemo::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A slot whose words all follow from its number, so that a torn or lost slot is detected.
struct Slot {
  uint64_t words[8];
};
Slot Numbered(uint64_t number) {
  Slot slot;
  for (uint64_t i = 0; i < 8; ++i) slot.words[i] = number * 0x9E3779B97F4A7C15 + i;
  return slot;
}
bool Same(const Slot& a, const Slot& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Sleeps as attachments do; returns the result of poll: 0 on timeout.
template <typename Ready>
int Sleep(Channel& channel, RingConsumer& ring, const Ready& ready, milliseconds timeout) {
  pollfd fds[2];
  ring.SetAsleep(true);
  int polled = -1;
  if (channel.PrepareSleep(fds) && !ready()) polled = ::poll(fds, 2, static_cast<int>(timeout.count()));
  ring.SetAsleep(false);
  return polled;
}

template <typename Done>
bool Eventually(Channel& channel, const Done& done) {
  const auto until = steady_clock::now() + std::chrono::seconds(10);
  while (!done()) {
    channel.Progress();
    if (steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

// Calls one end's Progress on a separate thread while it exists, as the owner of that end does.
class Progressing {
 public:
  explicit Progressing(Channel& channel)
      : thread_([this, &channel] {
          while (!stop_) channel.Progress();
        }) {}
  ~Progressing() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST_CASE("bytes that one end writes the other sees, both ways") {
  for (const ChannelKind& kind : ChannelKinds()) {
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 20);
    std::mt19937 random(1);
    for (int round = 0; round < 50; ++round) {
      Channel& from = round % 2 == 0 ? *pair.worker : *pair.service;
      Channel& to = round % 2 == 0 ? *pair.service : *pair.worker;
      const size_t length = 1 + random() % (100 << 10);
      const size_t offset = random() % ((1 << 20) - length);
      for (size_t i = 0; i < length; ++i) from.memory()[offset + i] = static_cast<std::byte>(random());
      {
        Progressing other(to);
        REQUIRE(from.Write(offset, length).ok());
        REQUIRE(from.Fence().ok());
      }
      const bool same = Eventually(to, [&] {
        from.Progress();
        return std::memcmp(to.memory().data() + offset, from.memory().data() + offset, length) == 0;
      });
      REQUIRE(same);
    }
  }
}

TEST_CASE("a read fetches the other end's bytes") {
  for (const ChannelKind& kind : ChannelKinds()) {
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 16);
    for (int i = 0; i < 5000; ++i) pair.service->memory()[100 + i] = static_cast<std::byte>(i);
    {
      Progressing other(*pair.service);
      CHECK(pair.worker->Read(100, 5000).ok());
    }
    for (int i = 0; i < 5000; ++i) REQUIRE(pair.worker->memory()[100 + i] == static_cast<std::byte>(i));
  }
}

TEST_CASE("writes and reads stay within the region") {
  for (const ChannelKind& kind : ChannelKinds()) {
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 16);
    const uint64_t size = pair.worker->memory().size();
    CHECK(pair.worker->Write(size, 0).ok());
    for (const auto& [offset, length] :
         std::vector<std::pair<uint64_t, uint64_t>>{{size, 1},
                                                    {0, size + 1},
                                                    {1, size},
                                                    {UINT64_MAX, 1},
                                                    {1, UINT64_MAX},
                                                    {UINT64_MAX, UINT64_MAX}}) {
      CHECK(pair.worker->Write(offset, length).code() == absl::StatusCode::kInvalidArgument);
      CHECK(pair.worker->Read(offset, length).code() == absl::StatusCode::kInvalidArgument);
    }
  }
}

TEST_CASE("a destroyed end is detected, also by a sleeper") {
  for (const ChannelKind& kind : ChannelKinds()) {
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 16);
    MakeRing(*pair.service, 0, 8, layout::kRingQuery, 1);
    RingConsumer ring(*pair.service, 0, 8);
    CHECK(!pair.service->lost(true));
    CHECK(!pair.worker->lost(true));
    std::thread closer([&] {
      std::this_thread::sleep_for(milliseconds(20));
      pair.worker.reset();
    });
    while (!pair.service->lost(false)) {
      REQUIRE(Sleep(
                  *pair.service, ring, [&] { return ring.Ready(); }, milliseconds(10000)) != 0);
    }
    closer.join();
    CHECK(pair.service->lost(false));
  }
}

// A producer and a consumer on their own threads; the seed determines batch sizes, pauses and sleeps.
void Stream(ChannelPair& pair, uint32_t slots, uint64_t count, uint32_t seed) {
  MakeRing(*pair.service, 0, slots, layout::kRingQuery, 1);
  MakeRing(*pair.worker, 0, slots, layout::kRingQuery, 1);
  std::thread producer([&] {
    RingProducer ring(*pair.worker, 0, slots);
    std::mt19937 random(seed);
    std::vector<Slot> batch;
    for (uint64_t next = 0; next < count;) {
      pair.worker->Progress();
      const uint32_t wanted = 1 + random() % slots;
      const absl::StatusOr<uint32_t> free = ring.Free(wanted);
      MNEMO_CHECK(free.ok());
      const uint64_t most = std::min<uint64_t>({*free, wanted, count - next});
      batch.clear();
      for (uint64_t i = 0; i < most; ++i) batch.push_back(Numbered(next++));
      MNEMO_CHECK(ring.Put(std::span<const Slot>(batch)).ok());
      if (most == 0) std::this_thread::yield();
      if (random() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
    }
    // Makes progress until the consumer has finished.
    while (!pair.worker->lost(false)) {
      pair.worker->Progress();
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  RingConsumer ring(*pair.service, 0, slots);
  std::mt19937 random(seed + 1);
  std::vector<Slot> out(slots);
  bool right = true;
  for (uint64_t next = 0; next < count;) {
    const auto ready = [&] {
      pair.service->Progress();
      return ring.Ready();
    };
    if (random() % 4 != 0 ? !SpinUntil(ready) : !ready()) {
      // Ten seconds: a lost wake-up.
      if (Sleep(*pair.service, ring, ready, milliseconds(10000)) == 0) right = false;
    }
    const absl::StatusOr<uint32_t> taken = ring.Take(std::span(out).subspan(0, 1 + random() % slots));
    if (!taken.ok()) right = false;
    if (!right) break;
    for (uint32_t i = 0; i < *taken; ++i) right = right && Same(out[i], Numbered(next++));
  }
  pair.service.reset();
  producer.join();
  CHECK(right);
}

TEST_CASE("slots leave a ring unchanged and in order, over many turns of the ring") {
  for (const ChannelKind& kind : ChannelKinds()) {
    for (const uint32_t slots : {8U, 64U}) {
      INFO(kind.name << " slots " << slots);
      ChannelPair pair = kind.make(1 << 16);
      Stream(pair, slots, 20000, slots);
    }
  }
}

TEST_CASE("free-running indices pass 2^32 without a gap") {
  for (const ChannelKind& kind : ChannelKinds()) {
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 16);
    constexpr uint32_t kSlots = 8;
    MakeRing(*pair.service, 0, kSlots, layout::kRingQuery, 1);
    MakeRing(*pair.worker, 0, kSlots, layout::kRingQuery, 1);
    // Both ends begin shortly before the wrap, as if about 2^32 slots had passed.
    constexpr uint32_t kBegin = UINT32_MAX - 5;
    RingProducer producer(*pair.worker, 0, kSlots, kBegin);
    RingConsumer consumer(*pair.service, 0, kSlots, kBegin);
    for (uint64_t next = 0; next < 40;) {
      const bool room = Eventually(*pair.worker, [&] {
        pair.service->Progress();
        return producer.Free(3).ok() && *producer.Free(3) >= 3;
      });
      REQUIRE(room);
      const Slot batch[3] = {Numbered(next), Numbered(next + 1), Numbered(next + 2)};
      REQUIRE(producer.Put(std::span<const Slot>(batch)).ok());
      for (int got = 0; got < 3;) {
        const bool ready = Eventually(*pair.service, [&] {
          pair.worker->Progress();
          return consumer.Ready();
        });
        REQUIRE(ready);
        Slot out[8];
        const absl::StatusOr<uint32_t> taken = consumer.Take(std::span<Slot>(out));
        REQUIRE(taken.ok());
        for (uint32_t i = 0; i < *taken; ++i, ++got) REQUIRE(Same(out[i], Numbered(next++)));
      }
    }
  }
}

TEST_CASE("a full ring has no room, and an invalid index breaks it") {
  for (const ChannelKind& kind : ChannelKinds()) {
    if (kind.has_own_memory) continue;  // each end has its own copy of the ring here
    INFO(kind.name);
    ChannelPair pair = kind.make(1 << 16);
    MakeRing(*pair.service, 0, 8, layout::kRingQuery, 1);
    REQUIRE(CheckRing(*pair.service, 0, 8, layout::kRingQuery, 1).ok());
    CHECK(CheckRing(*pair.service, 0, 16, layout::kRingQuery, 1).message().find("slots") !=
          absl::string_view::npos);
    CHECK(CheckRing(*pair.service, 0, 8, layout::kRingBulk, 1).message().find("kind") !=
          absl::string_view::npos);
    RingProducer producer(*pair.service, 0, 8);
    const Slot batch[8] = {};
    REQUIRE(producer.Put(std::span<const Slot>(batch)).ok());
    CHECK(*producer.Free(1) == 0);
    const auto poke = [&](size_t field, uint32_t value) {
      std::memcpy(pair.service->memory().data() + field, &value, sizeof value);
    };
    poke(offsetof(layout::RingHeader, tail), 9);  // more slots taken than written
    CHECK(producer.Free(1).status().code() == absl::StatusCode::kUnavailable);
    poke(offsetof(layout::RingHeader, tail), 0xFFFFFFFF);
    CHECK(producer.Free(1).status().code() == absl::StatusCode::kUnavailable);
    RingConsumer consumer(*pair.service, 0, 8);
    poke(offsetof(layout::RingHeader, head), 9);
    Slot out[16];
    CHECK(consumer.Take(std::span<Slot>(out)).status().code() == absl::StatusCode::kUnavailable);
    // The header's description of the ring is not read any more.
    poke(offsetof(layout::RingHeader, head), 8);
    poke(offsetof(layout::RingHeader, slots), 1 << 30);
    poke(offsetof(layout::RingHeader, slots_offset_bytes), 1 << 30);
    const absl::StatusOr<uint32_t> taken = consumer.Take(std::span<Slot>(out));
    REQUIRE(taken.ok());
    CHECK(*taken == 8);
  }
}

}  // namespace
}  // namespace mnemo::transport
