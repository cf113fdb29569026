// The queue poller alone, with a host memory of any fixed latency: what the command processor's own reads are
// too slow to show.

#include <Vpoller_bench.h>
#include <verilated.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "fpga/tests/testing/cases.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/ring.h"

namespace mnemo::rtl_command {
namespace {

using rtl_tests::Cases;

constexpr uint32_t kQueues = 8;
constexpr uint32_t kSlots = 4;
constexpr uint64_t kElsewhere = 1ULL << 30;

class PollerRig {
 public:
  PollerRig() {
    Verilated::randReset(2);
    top_.rst = 1;
    top_.run = top_.quiet = 0;
    top_.enable = top_.poll = top_.elsewhere = 0;
    top_.slots = kSlots;
    Run(8);
    top_.rst = 0;
    top_.run = 1;
  }

  // One cycle. Checks what the poller reads and takes.
  void Cycle() {
    for (uint32_t q = 0; q < kQueues; ++q) top_.head[q] = queues_[q].head;
    top_.read_ready = 3;
    top_.write_ready = 1;
    top_.taken_ready = held_ == 0;
    top_.beat_valid = 0;
    for (int port = 0; port < 2 && top_.beat_valid == 0; ++port) {
      if (!reads_[port].open || reads_[port].wait != 0) continue;
      top_.beat_valid = static_cast<uint8_t>(1 << port);
      Answer(reads_[port].address);
    }
    top_.clk = 0;
    top_.eval();
    const bool counts = !top_.rst;
    for (int port = 0; port < 2 && counts; ++port) {
      Read& read = reads_[port];
      if ((top_.beat_valid & top_.beat_ready) >> port & 1) {
        if (port == 0 && IsDescriptor(read.address)) ++queues_[Owner(read.address)].taken;
        read.open = false;
      } else if (read.open && read.wait > 0) {
        --read.wait;
      }
      if ((top_.read_valid & top_.read_ready) >> port & 1) {
        REQUIRE(!read.open);
        read = {true, latency, top_.read_address[port]};
        CheckRead(read.address);
      }
    }
    if (counts && top_.taken_valid && top_.taken_ready) {
      REQUIRE(top_.taken_seq == top_.taken_next_seq);
      order_.push_back(top_.taken_number);
      held_ = pause + 1;
    }
    if (held_ > 0) --held_;
    top_.clk = 1;
    top_.eval();
  }

  void Run(int cycles) {
    for (int i = 0; i < cycles; ++i) Cycle();
  }

  // Opens a queue anew, with empty rings.
  void Open(uint32_t q) {
    queues_[q] = {};
    top_.enable = static_cast<uint8_t>(top_.enable | 1U << q);
    for (int cycle = 0;; ++cycle) {
      REQUIRE(cycle < 1000);
      Cycle();
      if (top_.opened && top_.opened_number == q) break;
    }
    Run(3);
  }
  void Close(uint32_t q) { top_.enable = static_cast<uint8_t>(top_.enable & ~(1U << q)); }

  // Keeps a queue's ring full.
  void Fill(uint32_t q) { queues_[q].head = queues_[q].taken + kSlots; }
  void Submit(uint32_t q) { ++queues_[q].head; }
  bool Empty(uint32_t q) const { return queues_[q].taken == queues_[q].head; }

  Vpoller_bench& top() { return top_; }
  const std::vector<uint32_t>& order() const { return order_; }
  uint32_t taken(uint32_t q) const { return queues_[q].taken; }

  int latency = 0;  // cycles from a read to its beat
  int pause = 0;    // cycles between descriptors in which the next stage takes none

 private:
  struct Read {
    bool open = false;
    int wait = 0;
    uint64_t address = 0;
  };
  struct Queue {
    uint32_t head = 0;
    uint32_t taken = 0;
  };

  static uint32_t Owner(uint64_t address) {
    return static_cast<uint32_t>((address & (kElsewhere - 1)) >> 20) - 1;
  }
  static bool IsDescriptor(uint64_t address) {
    const uint64_t offset = address & 0xFFFFF;
    return offset >= sizeof(layout::RingHeader) && offset < 0x80000;
  }

  void CheckRead(uint64_t address) {
    const uint32_t q = Owner(address);
    REQUIRE(q < kQueues);
    // No read is of a ring that its queue did not have while it was enabled.
    REQUIRE((address & kElsewhere) == 0);
    if (!IsDescriptor(address)) return;
    const Queue& queue = queues_[q];
    REQUIRE(queue.taken != queue.head);
    REQUIRE((address & 0xFFFFF) == sizeof(layout::RingHeader) + (queue.taken & (kSlots - 1)) * 64);
  }

  void Answer(uint64_t address) {
    std::array<uint8_t, 64> bytes{};
    const Queue& queue = queues_[Owner(address)];
    const uint64_t offset = address & 0xFFFFF;
    if (IsDescriptor(address)) {
      layout::Descriptor d{};
      d.seq = queue.taken;
      std::memcpy(bytes.data(), &d, sizeof d);
    } else if (offset == offsetof(layout::RingHeader, head)) {
      std::memcpy(bytes.data(), &queue.head, sizeof queue.head);
    }
    std::memcpy(&top_.beat[0], bytes.data(), bytes.size());
  }

  Vpoller_bench top_;
  std::array<Queue, kQueues> queues_;
  std::array<Read, 2> reads_;
  std::vector<uint32_t> order_;
  int held_ = 0;
};

TEST_CASE("a queue whose tail keeps moving starves no other") {
  PollerRig rig;
  for (uint32_t q = 0; q < kQueues; ++q) rig.Open(q);
  for (const uint32_t busy : {1U, 3U}) {
    for (rig.latency = 0; rig.latency < 14; ++rig.latency) {
      for (rig.pause = 0; rig.pause < 14; ++rig.pause) {
        for (uint32_t q = busy; q < kQueues; ++q) {
          CAPTURE(busy, rig.latency, rig.pause, q);
          for (int cycle = 0; cycle < 100; ++cycle) {
            for (uint32_t other = 0; other < busy; ++other) rig.Fill(other);
            rig.Cycle();
          }
          const size_t before = rig.order().size();
          rig.Submit(q);
          for (int cycle = 0; !rig.Empty(q); ++cycle) {
            REQUIRE(cycle < 5000);
            for (uint32_t other = 0; other < busy; ++other) rig.Fill(other);
            rig.Cycle();
            REQUIRE(rig.order().size() - before < kQueues);
          }
        }
      }
    }
  }
}

TEST_CASE("the registers of a queue that is disabled are used no more") {
  for (const bool open : {false, true}) {
    for (int wait = 0; wait < Cases(60); ++wait) {
      CAPTURE(open, wait);
      PollerRig rig;
      rig.latency = 3;
      rig.Open(0);
      if (open) rig.Open(1);
      rig.Fill(0);
      rig.Run(wait / 4);
      // Queue 1 is opened, or has a descriptor. Then it is disabled, and has other rings at once.
      if (open) rig.Submit(1);
      rig.top().enable = 3;
      rig.Run(wait % 40);
      rig.Close(1);
      rig.top().elsewhere = 2;
      for (int cycle = 0; cycle < 100; ++cycle) {
        rig.Fill(0);
        rig.Cycle();
      }
      CHECK(rig.taken(0) > 2);
      rig.top().elsewhere = 0;
      rig.Open(1);
      rig.Submit(1);
      rig.Run(200);
      CHECK(rig.Empty(1));
    }
  }
}

}  // namespace
}  // namespace mnemo::rtl_command
