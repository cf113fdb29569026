#pragma once

// A card simulated cycle by cycle: the Verilated fpga/rtl/card_top.sv with models of its memories' timing.
// The memories themselves are the caller's. Time passes in Run and in accesses to registers alone.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "fpga/sim/memory.h"

namespace mnemo::sim {

enum class Fault : uint8_t {
  kNone,
  kChannelStops,  // a channel answers nothing from its fault_at-th burst on
  kChannelError,  // that burst has an error response
  kHostStops,     // host memory answers nothing from its fault_at-th burst on
  kHostError,     // that read has an error response
  kWriteError,    // the fault_at-th write to host memory has an error response
};

struct RtlCardOptions {
  uint32_t clock_mhz = 250;    // 50 to 1,000
  uint64_t seed = 1;           // of latencies, and of what is in registers at the start
  uint32_t stall_percent = 0;  // of clocks in which a memory takes or gives nothing, for tests; below 100
  Fault fault = Fault::kNone;
  uint64_t fault_at = 1000;
  uint32_t fault_channel = 0;
  Range near;         // of the command processor's addresses: card memory
  std::string trace;  // file of waveforms; empty: none
};

class RtlCard {
 public:
  // Channels of the module that this build has.
  static uint32_t Channels();
  // INVALID_ARGUMENT names the option and its bounds. UNIMPLEMENTED: this build writes no waveforms.
  static absl::Status Check(const RtlCardOptions& options);

  // After a reset. Channel n may read what `channel_range(n)` says; `card` and `host` outlive the card.
  RtlCard(const RtlCardOptions& options, const std::function<Range(uint32_t)>& channel_range, Memory* card,
          Memory* host);
  ~RtlCard();
  RtlCard(const RtlCard&) = delete;
  RtlCard& operator=(const RtlCard&) = delete;
  // NOT_FOUND: the file of waveforms cannot be made, and there are none.
  const absl::Status& trace_status() const { return trace_status_; }

  // UNAVAILABLE: the card answers no access.
  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset);
  absl::Status WriteRegister(uint32_t offset, uint32_t value);
  // Runs for at most `cycles`, fewer when the card has written to host memory or has nothing left to do.
  // Returns at once when nothing is under way. Whether anything still is.
  bool Run(uint32_t cycles);
  // So many clocks, whatever the card does.
  void Clock(uint32_t cycles);
  // Whether the line of interrupts is up.
  bool interrupt() const;
  // Lets open transactions of memories end, for at most `cycles`. Whether none is open.
  bool Settle(uint32_t cycles);
  uint64_t cycles() const { return cycles_; }

  // From now on the command processor may address these ranges alone, and a lane `range` alone.
  void AllowHost(const std::vector<Range>& reads_and_writes);
  void AllowChannel(uint32_t number, Range range);
  // Requests of the card that its memories must not get: bursts that cross 4 KiB, addresses outside.
  uint64_t violations() const;
  std::string first_violation() const;

 private:
  struct Parts;
  void Tick();
  bool MemoriesIdle() const;
  void NotePolls(uint32_t offset, uint32_t value);

  std::unique_ptr<Parts> parts_;
  absl::Status trace_status_;
  uint64_t clock_ps_;
  uint64_t cycles_ = 0;
  bool busy_ = false;    // a register was written, and the card has not been seen idle since
  uint32_t polled_ = 0;  // queues whose heads the card reads by itself: it is never known to be idle
};

}  // namespace mnemo::sim
