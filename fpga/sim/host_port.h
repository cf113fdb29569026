#pragma once

// Host memory behind the card's AXI port, as it looks over PCIe: a long latency, a bounded rate, answers in
// order. Writes reach the memory when their response is given.

#include <cstdint>
#include <deque>
#include <random>

#include "fpga/sim/memory.h"

namespace mnemo::sim {

struct HostPortOptions {
  int64_t clock_ps = 4000;
  uint64_t seed = 1;
  int64_t read_latency_ps = 900'000;
  int64_t write_latency_ps = 500'000;
  int64_t jitter_ps = 100'000;  // at most, a burst
  int64_t beat_ps = 5000;       // 64 bytes at 12.8 GB/s
  // Faults, by the number of the burst or write from 0 on; none by default.
  uint64_t read_error_at = UINT64_MAX;
  uint64_t write_error_at = UINT64_MAX;
  uint64_t stop_at = UINT64_MAX;  // bursts and writes from it on are not answered
};

class HostPort {
 public:
  // The card's side of a clock.
  struct Request {
    bool ar_valid = false;
    uint64_t ar_addr = 0;
    uint8_t ar_len = 0;
    bool r_ready = false;
    bool aw_valid = false;
    uint64_t aw_addr = 0;
    uint8_t aw_len = 0;
    bool w_valid = false;
    const uint8_t* w_data = nullptr;
    uint64_t w_strb = 0;
    bool w_last = false;
    bool b_ready = false;
  };

  // `memory` outlives the port.
  HostPort(const HostPortOptions& options, Memory* memory);

  // The memory's side of this clock.
  bool ar_ready() const { return reads_.size() < kOpen; }
  bool aw_ready() const { return addresses_.size() < kOpen; }
  bool w_ready() const { return data_.size() < kOpen; }
  bool r_valid() const { return !reads_.empty() && reads_.front().due_ps <= now_ps_; }
  // With r_valid.
  const uint8_t* r_data() const { return reads_.front().data; }
  uint8_t r_resp() const { return reads_.front().response; }
  bool r_last() const { return reads_.front().left == 1; }
  bool b_valid() const {
    return !writes_.empty() && writes_.front().due_ps <= now_ps_ && writes_.front().beats.empty();
  }
  uint8_t b_resp() const { return writes_.front().response; }

  // The end of the clock.
  void Step(const Request& request);
  // Another run of the same memory: nothing is open any more.
  void Reset();

  PortRules& rules() { return rules_; }
  bool idle() const { return reads_.empty() && addresses_.empty() && data_.empty() && writes_.empty(); }

 private:
  static constexpr size_t kOpen = 64;
  static constexpr uint8_t kSlaveError = 2;
  static constexpr uint8_t kDecodeError = 3;
  struct Read {
    uint64_t address;
    uint32_t left;
    int64_t due_ps;
    const uint8_t* data;
    uint8_t response;
    uint64_t number;
  };
  struct Address {
    uint64_t address;
    uint32_t beats;
    uint64_t number;
  };
  struct Data {
    uint8_t bytes[kBeatBytes];
    uint64_t strobes;
    bool last;
  };
  struct Write {
    uint64_t address;
    int64_t due_ps;
    uint8_t response;
    std::deque<Data> beats;
  };

  int64_t Later(int64_t latency_ps);
  void Find(Read* read);
  void Pair();
  void Store(const Write& write);

  const HostPortOptions options_;
  Memory* const memory_;
  PortRules rules_;
  std::mt19937 rng_;
  int64_t now_ps_ = 0;
  int64_t read_bus_ps_ = 0;
  int64_t write_bus_ps_ = 0;
  uint64_t reads_taken_ = 0;
  uint64_t writes_taken_ = 0;
  std::deque<Read> reads_;
  std::deque<Address> addresses_;  // without all of their data
  std::deque<Data> data_;
  std::deque<Write> writes_;  // without a response
};

}  // namespace mnemo::sim
