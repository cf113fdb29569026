#pragma once

// A card simulated cycle by cycle: the Verilated fpga/rtl/card_top.sv with models of its memories, behind the
// calls of a driver. Time passes in Advance and in accesses to registers alone.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"

namespace mnemo::sim {

class HostPort;
class HbmChannel;

enum class Fault : uint8_t {
  kNone,
  kChannelStops,  // a channel answers nothing from its fault_at-th burst on
  kChannelError,  // that burst has an error response
  kHostStops,     // host memory answers nothing from its fault_at-th burst on
  kHostError,     // that read has an error response
};

struct RtlOptions {
  uint64_t hbm_bytes = uint64_t{1} << 30;  // of all channels; only what is written takes memory
  uint64_t host_bytes = uint64_t{64} << 20;
  uint32_t clock_mhz = 250;
  uint64_t seed = 1;  // of latencies, and of what is in memory and registers at the start
  Fault fault = Fault::kNone;
  uint64_t fault_at = 1000;
  uint32_t cycles = 2000;  // at most in one Advance
  std::string trace;       // file of waveforms; empty: none
};

class RtlPort final : public card::CardPort {
 public:
  // Channels of the module that this build has.
  static uint32_t Channels();
  // Resets the card and tells it where its channels lie. INVALID_ARGUMENT names the option and its bounds,
  // UNIMPLEMENTED and NOT_FOUND what hinders a trace.
  static absl::StatusOr<std::unique_ptr<RtlPort>> Make(const RtlOptions& options);
  ~RtlPort() override;
  RtlPort(const RtlPort&) = delete;
  RtlPort& operator=(const RtlPort&) = delete;

  // UNAVAILABLE: the card answers no access.
  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  // INVALID_ARGUMENT: not within the card's memory.
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override;
  uint64_t host_address() const override;
  // Returns early when the card has written to host memory.
  void Advance() override;
  uint64_t simulated_cycles() const override { return cycles_; }

  // Requests of the card that its memories must not get: bursts that cross 4 KiB, addresses outside.
  uint64_t violations() const;
  std::string first_violation() const;

 private:
  struct Parts;
  RtlPort(const RtlOptions& options, std::unique_ptr<Parts> parts);
  void Tick();

  const RtlOptions options_;
  std::unique_ptr<Parts> parts_;
  uint64_t cycles_ = 0;
  bool busy_ = false;  // a doorbell rang, and the card has not been seen idle since
};

}  // namespace mnemo::sim
