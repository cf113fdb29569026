#pragma once

// One channel of HBM2 behind an AXI read port, a clock of the port at a time. Time of the memory is counted
// in picoseconds, so that the port's clock is a parameter.
//
// The controller serves bursts in order. A beat takes 64 bytes at the peak rate, and a row that is not open
// in its bank takes an activation, which overlaps with data of other banks when its burst was known early
// enough. All banks rest while the channel refreshes. Data is offered after a latency with a jitter a burst,
// in order, at most one beat a clock; a master that does not take it stops the controller when the buffer is
// full.

#include <array>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "fpga/sim/memory.h"

namespace mnemo::sim {

struct HbmOptions {
  int64_t clock_ps = 4000;        // of the port
  uint64_t seed = 1;              // of jitter and stalls
  int64_t beat_ps = 4444;         // 64 bytes at 14.4 GB/s
  int64_t row_gap_ps = 750;       // lost on the data bus when another row begins
  int64_t activate_ps = 14'000;   // a row opens
  int64_t precharge_ps = 14'000;  // another row closes
  int64_t row_cycle_ps = 47'000;  // between activations of a bank
  int64_t refresh_ps = 260'000;   // a refresh takes
  int64_t refresh_every_ps = 3'900'000;
  int64_t latency_ps = 100'000;  // of controller and interconnect
  int64_t jitter_ps = 20'000;    // at most, a burst
  uint32_t open_bursts = 32;     // then no address is taken
  uint32_t buffer_beats = 128;
  uint32_t stall_percent = 0;  // of clocks in which ready or a new beat is held back, for tests
  // Faults, by the number of the burst from 0 on; none by default.
  uint64_t error_at = UINT64_MAX;  // its beats have an error response
  uint64_t stop_at = UINT64_MAX;   // it and those after it are not answered
};

class HbmChannel {
 public:
  static constexpr uint64_t kRowBytes = 1024;
  static constexpr uint32_t kBanks = 16;

  // `memory` holds what `range` addresses, and outlives the channel.
  HbmChannel(const HbmOptions& options, Range range, Memory* memory);

  // The channel's side of this clock.
  bool ar_ready() const { return ar_ready_; }
  bool r_valid() const { return r_valid_; }
  // With r_valid.
  const uint8_t* r_data() const { return Front().data; }
  uint8_t r_resp() const { return Front().response; }
  bool r_last() const { return Front().last; }

  // The end of the clock, with what the master offers in it: a burst of length + 1 beats.
  void Step(bool ar_valid, uint64_t address, uint8_t length, bool r_ready);
  // Another run of the same memory: nothing is open any more.
  void Reset();

  PortRules& rules() { return rules_; }
  const PortRules& rules() const { return rules_; }
  uint64_t beats() const { return beats_; }  // taken by the master
  uint64_t bursts() const { return bursts_; }
  uint64_t activations() const { return activations_; }
  uint64_t refreshes() const { return refreshes_; }
  bool idle() const { return bursts_open_.empty() && first_ == end_; }

 private:
  static constexpr uint8_t kSlaveError = 2;
  static constexpr uint8_t kDecodeError = 3;
  struct Burst {
    uint64_t number;
    uint64_t address;
    uint32_t beats;
    uint32_t served;
    int64_t known_ps;  // when the controller knows it
    int64_t latency_ps;
  };
  struct Beat {
    const uint8_t* data;
    int64_t ready_ps;
    uint8_t response;
    bool last;
  };
  struct Bank {
    int64_t row = -1;
    int64_t free_ps = 0;  // for the next activation
  };

  const Beat& Front() const { return buffer_[first_ & (buffer_.size() - 1)]; }
  void Take(uint64_t address, uint32_t beats);
  void Serve();
  int64_t StartOf(const Burst& burst, uint64_t address);
  void Refresh(int64_t* start_ps);

  const HbmOptions options_;
  const Range range_;
  Memory* const memory_;
  PortRules rules_;
  std::mt19937 rng_;
  std::deque<Burst> bursts_open_;  // not served yet
  std::vector<Beat> buffer_;       // a power of two
  uint64_t first_ = 0;             // of the buffer, free-running
  uint64_t end_ = 0;
  uint32_t answers_open_ = 0;  // bursts taken and not answered
  std::array<Bank, kBanks> banks_;
  int64_t now_ps_ = 0;
  int64_t bus_ps_ = 0;  // the data bus is free
  int64_t next_refresh_ps_;
  bool ar_ready_ = false;
  bool r_valid_ = false;
  uint64_t beats_ = 0;
  uint64_t bursts_ = 0;
  uint64_t activations_ = 0;
  uint64_t refreshes_ = 0;
};

}  // namespace mnemo::sim
