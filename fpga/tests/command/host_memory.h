#pragma once

// Host memory of the command processor's tests: bytes behind the port of the simulation
// (fpga/sim/host_port.h) with random latencies and back-pressure. A clock is a picosecond.

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "fpga/sim/host_port.h"
#include "fpga/sim/memory.h"

namespace mnemo::rtl_command {

class HostMemory {
 public:
  static constexpr uint64_t kBase = 0x4'0000'0000;
  using Write = sim::HostPort::Write;

  // A multiple of 64 bytes.
  HostMemory(uint64_t bytes, uint64_t seed);

  uint8_t* At(uint64_t address) { return &bytes_.at(address - kBase); }
  uint32_t Word(uint64_t address);
  void SetWord(uint64_t address, uint32_t value);
  // Takes the next bytes, aligned to 64, with a gap behind them.
  uint64_t Take(uint64_t bytes);
  void AllowReads(uint64_t address, uint64_t bytes) { port_.rules().AllowReads({address, bytes}); }
  void AllowWrites(uint64_t address, uint64_t bytes) { port_.rules().AllowWrites({address, bytes}); }

  // Signals of one cycle: what the memory drives, then what it sees at the clock's edge.
  const sim::HostPort& Drive();
  void Clock(const sim::HostPort::Request& request) { port_.Step(request); }

  sim::HostPort::Observer& observer() { return port_.observer(); }
  // Writes without a response, in order. Bytes change when the response is given.
  const std::deque<Write>& open_writes() const { return port_.open_writes(); }
  bool open() const { return !port_.idle(); }

  uint64_t violations() { return port_.rules().violations(); }
  uint64_t beats_read() const { return port_.beats_read(); }
  uint64_t words_written() const { return port_.bytes_written() / 4; }

  // Knobs, obeyed from the next Drive on.
  uint32_t ready_percent = 60;
  int latency = 40;     // up to as many cycles
  bool answers = true;  // reads and writes have an answer
  int fail_read = -1;   // beats until one has an error; -1: none
  int fail_write = -1;  // writes until one has

 private:
  std::vector<uint8_t> bytes_;
  std::mt19937_64 random_;
  uint64_t taken_ = 0;
  sim::MappedMemory memory_;
  sim::HostPort port_;
};

}  // namespace mnemo::rtl_command
