#pragma once

// Host memory behind the AXI port of the command processor: random latencies and back-pressure, one id, in
// order. Whatever is addressed outside of the allowed ranges is counted.

#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <span>
#include <vector>

namespace mnemo::rtl_command {

class HostMemory {
 public:
  static constexpr uint64_t kBase = 0x4'0000'0000;

  HostMemory(uint64_t bytes, uint64_t seed) : bytes_(bytes), random_(seed) {}

  uint8_t* At(uint64_t address) { return &bytes_.at(address - kBase); }
  uint32_t Word(uint64_t address);
  void SetWord(uint64_t address, uint32_t value);
  // Takes the next bytes, aligned to 64, with a gap behind them.
  uint64_t Take(uint64_t bytes);
  void AllowReads(uint64_t address, uint64_t bytes) { reads_.push_back({address, address + bytes}); }
  void AllowWrites(uint64_t address, uint64_t bytes) { writes_.push_back({address, address + bytes}); }

  // Signals of one cycle: what the memory drives, then what it sees at the clock's edge.
  struct Outputs {
    bool ar_ready, r_valid, r_last, aw_ready, w_ready, b_valid;
    uint8_t r_resp, b_resp;
    const uint8_t* r_data;
  };
  struct Inputs {
    bool ar_valid, r_ready, aw_valid, w_valid, b_ready;
    uint64_t ar_addr, aw_addr;
    uint32_t ar_len;
    const uint32_t* w_data;
    uint64_t w_strb;
  };
  Outputs Drive();
  void Clock(const Inputs& in);

  struct Write {
    uint64_t address;
    uint64_t strobes;
    uint32_t words[16];
    uint64_t due;
  };
  // Called when a burst's address is taken, and when the address and data of a write are.
  std::function<void(uint64_t address, uint32_t beats)> on_read;
  std::function<void(const Write& write)> on_write;
  // Writes without a response, in order. Bytes change when the response is given.
  const std::deque<Write>& open_writes() const { return writes_open_; }
  bool open() const {
    return !bursts_.empty() || !writes_open_.empty() || !addresses_.empty() || !data_.empty();
  }

  int violations() const { return violations_; }
  uint64_t beats_read() const { return beats_read_; }
  uint64_t words_written() const { return words_written_; }

  // Knobs.
  int ready_percent = 60;
  int latency = 40;     // up to as many cycles
  bool answers = true;  // reads and writes have an answer
  int fail_read = -1;   // beats until one has an error
  int fail_write = -1;  // writes until one has

 private:
  struct Range {
    uint64_t begin, end;
  };
  struct Burst {
    uint64_t address;
    uint32_t left;
    uint64_t due;
  };
  bool Chance() { return static_cast<int>(random_() % 100) < ready_percent; }
  static bool Inside(const std::vector<Range>& ranges, uint64_t begin, uint64_t end);

  std::vector<uint8_t> bytes_;
  std::mt19937_64 random_;
  std::vector<Range> reads_, writes_;
  uint64_t taken_ = 0;
  uint64_t cycle_ = 0;
  std::deque<Burst> bursts_;
  std::deque<uint64_t> addresses_;
  std::deque<Write> data_, writes_open_;
  Outputs out_{};
  uint8_t beat_[64] = {};
  int violations_ = 0;
  uint64_t beats_read_ = 0;
  uint64_t words_written_ = 0;
};

}  // namespace mnemo::rtl_command
