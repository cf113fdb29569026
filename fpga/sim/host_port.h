#pragma once

// Host memory behind the card's AXI port, as it looks over PCIe: a long latency, a bounded rate, answers in
// order. A range may be the card's own memory, which is nearer. Writes reach the memory when their response
// is given.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "fpga/sim/memory.h"

namespace mnemo::sim {

struct HostPortOptions {
  int64_t clock_ps = 4000;
  uint64_t seed = 1;
  int64_t read_latency_ps = 900'000;
  int64_t write_latency_ps = 500'000;
  int64_t jitter_ps = 100'000;  // at most, a burst
  int64_t beat_ps = 5000;       // 64 bytes at 12.8 GB/s
  Range near;                   // of card memory
  int64_t near_read_latency_ps = 120'000;
  int64_t near_write_latency_ps = 100'000;
  // Back-pressure: chance of each ready, and of each answer that is due, in a clock.
  uint32_t ready_percent = 100;
  size_t open = 64;  // bursts, addresses of writes and beats of writes that wait, each
  // Faults, by the number of the burst or write from 0 on; none by default.
  uint64_t read_error_at = UINT64_MAX;
  uint64_t write_error_at = UINT64_MAX;
  uint64_t stop_at = UINT64_MAX;          // bursts and writes from it on are not answered
  uint64_t read_error_beat = UINT64_MAX;  // one beat, by its number
  bool answers = true;                    // false: nothing new is answered for now
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

  struct Data {
    uint8_t bytes[kBeatBytes];
    uint64_t strobes;
    bool last;
  };
  // A write whose address and data have come and whose response has not been taken.
  struct Write {
    uint64_t address;
    int64_t due_ps;
    uint8_t response;
    std::vector<Data> beats;
  };
  // Calls of a test, at the clock in which a burst's address is taken, and in which a write is complete.
  struct Observer {
    std::function<void(uint64_t address, uint32_t beats)> on_read;
    std::function<void(const Write& write)> on_write;
  };

  // `memory` outlives the port.
  HostPort(const HostPortOptions& options, Memory* memory);

  // The memory's side of this clock. What is valid stays so until it is taken.
  bool ar_ready() const { return ar_ready_; }
  bool aw_ready() const { return aw_ready_; }
  bool w_ready() const { return w_ready_; }
  bool r_valid() const { return r_valid_; }
  // With r_valid.
  const uint8_t* r_data() const { return reads_.front().data; }
  uint8_t r_resp() const { return r_resp_; }
  bool r_last() const { return reads_.front().left == 1; }
  bool b_valid() const { return b_valid_; }
  uint8_t b_resp() const { return writes_.front().response; }

  // The end of the clock.
  void Step(const Request& request);
  // Another run of the same memory: nothing is open any more.
  void Reset();

  // May be changed between clocks. Latencies are those at the time when a burst or write comes.
  HostPortOptions& options() { return options_; }
  Observer& observer() { return observer_; }
  PortRules& rules() { return rules_; }
  bool idle() const { return reads_.empty() && addresses_.empty() && data_.empty() && writes_.empty(); }
  // Oldest first. Their bytes are in the memory once the response is valid.
  const std::deque<Write>& open_writes() const { return writes_; }
  uint64_t beats_read() const { return beats_read_; }
  uint64_t bytes_written() const { return bytes_written_; }
  uint64_t writes_taken() const { return writes_taken_; }  // addresses

 private:
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

  int64_t Later(bool near, int64_t latency_ps);
  void Find(Read* read);
  // The next beat of the oldest read gets its turn on the link.
  void UseLink(Read* read);
  void Pair();
  void Store(const Write& write);
  // Decides what the next clock shows.
  void Show();
  bool Chance() { return options_.ready_percent >= 100 || rng_() % 100 < options_.ready_percent; }

  HostPortOptions options_;
  Memory* const memory_;
  Observer observer_;
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
  std::deque<Write> writes_;
  bool ar_ready_ = true;
  bool aw_ready_ = true;
  bool w_ready_ = true;
  bool r_valid_ = false;
  bool b_valid_ = false;
  uint8_t r_resp_ = 0;
  uint64_t beats_read_ = 0;
  uint64_t bytes_written_ = 0;
};

}  // namespace mnemo::sim
