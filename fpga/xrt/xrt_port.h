// A card behind XRT: registers by xrt::ip, one buffer object for each channel, and one of host memory that
// the card reaches by itself. XRT's emulation stands behind the same calls.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"
#include "fpga/xrt/emulation_guard.h"
#include "fpga/xrt/hot_reset.h"
#include "fpga/xrt/interrupt_watch.h"
#include "fpga/xrt/xrt_calls.h"

namespace mnemo::xrt_card {

enum class Interrupts : uint8_t {
  kAuto,  // where XRT has them; emulation has none
  kOn,    // without them the card is refused
  kOff,   // the card is polled
};

struct XrtPortOptions {
  std::string device = "0";  // index, or bus address as in 0000:3b:00.1
  std::string xclbin;        // path
  HostMemory memory = HostMemory::kHost;
  uint64_t hbm_bytes = 0;  // of all channels together; 0: all that the image's memories have
  uint64_t host_bytes = uint64_t{64} << 20;
  // The clock that the image was made for must be at least this; 0: any.
  uint32_t clock_mhz = 0;
  // The clock that the driver counts by, which the image must have; 0: any.
  uint32_t driver_clock_mhz = 0;
  // For a reset of the whole card by XRT, first; not in emulation. None: there is no such reset.
  std::shared_ptr<HotReset> hot_reset;
  Interrupts interrupts = Interrupts::kAuto;
};

class XrtPort final : public card::CardPort {
 public:
  // Opens the card, loads the image, takes memory, and tells the card where its channels lie. An error says
  // what misses and what to do. INVALID_ARGUMENT: the image is not one of this card. NOT_FOUND: no such
  // device or file. PERMISSION_DENIED: this user may not open it. FAILED_PRECONDITION: the host is not set
  // up, or the image is of another version. RESOURCE_EXHAUSTED: there is not enough memory. UNAVAILABLE,
  // DEADLINE_EXCEEDED: as HotReset has them. After an error nothing is held, but by a reset that hangs.
  static absl::StatusOr<std::unique_ptr<XrtPort>> Create(const XrtPortOptions& options,
                                                         const XrtHost& host = {});
  ~XrtPort() override;

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override;
  uint64_t host_address() const override;
  bool interrupts() const override { return watch_ != nullptr; }
  absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) override;
  int interrupt_fd() const override { return watch_ == nullptr ? -1 : watch_->fd(); }
  // Asked of XRT at most ten times a second.
  std::optional<double> watts() override;

  // The card's highest temperature in degrees Celsius; none: it has no sensor.
  std::optional<double> degrees();

  // The card's name, as XRT has it.
  const std::string& device_name() const { return device_name_; }
  // The process of XRT's software emulation; 0: it is a card.
  pid_t device_process() const { return guard_ == nullptr ? 0 : guard_->device_process(); }

 private:
  XrtPort() = default;
  absl::Status Open(const XrtPortOptions& options, const XrtImage& image);
  absl::Status CheckIdentity(const std::string& xclbin);
  absl::Status TakeMemory(const XrtPortOptions& options);
  absl::Status TakeInterrupts(const XrtPortOptions& options);
  // The channel and offset of bytes of card memory.
  absl::StatusOr<std::pair<uint32_t, uint64_t>> Find(uint64_t address, uint64_t size) const;

  std::unique_ptr<EmulationGuard> guard_;  // of emulation alone; longer than XRT's objects
  std::shared_ptr<XrtCalls> calls_;        // shared with a reset that hangs
  std::vector<uint64_t> channels_;         // addresses
  uint64_t channel_bytes_ = 0;
  MappedHost host_;
  std::unique_ptr<InterruptWatch> watch_;  // none: the card is polled; shorter than XRT's objects
  std::string device_name_;
  std::optional<double> watts_;
  std::chrono::steady_clock::time_point watts_until_{};
};

}  // namespace mnemo::xrt_card
