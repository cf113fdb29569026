// A card behind XRT: registers by xrt::ip, one buffer object for each channel, and one of host memory that
// the card reaches by itself. XRT's emulation stands behind the same calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "fpga/card/card_port.h"

namespace mnemo::xrt_card {

enum class HostMemory : uint8_t {
  kHost,  // memory of the host that the card reads and writes over PCIe, HOST[0] of the platform
  kHbm,   // memory of the card that the host maps over PCIe (peer-to-peer)
};

struct XrtPortOptions {
  std::string device = "0";  // index, or bus address as in 0000:3b:00.1
  std::string xclbin;        // path
  HostMemory memory = HostMemory::kHost;
  uint64_t hbm_bytes = 0;  // of all channels together; 0: all that the image's memories have
  uint64_t host_bytes = uint64_t{64} << 20;
  // The clock that the image was made for must be at least this; 0: any.
  uint32_t clock_mhz = 0;
};

class XrtPort final : public card::CardPort {
 public:
  // Opens the card, loads the image, takes memory, and tells the card where its channels lie. An error says
  // what misses and what to do. INVALID_ARGUMENT: the image is not one of this card. NOT_FOUND: no such
  // device or file. FAILED_PRECONDITION: the host is not set up. RESOURCE_EXHAUSTED: there is not enough
  // memory.
  static absl::StatusOr<std::unique_ptr<XrtPort>> Create(const XrtPortOptions& options);
  ~XrtPort() override;

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override;
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override;
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override;
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override;
  std::span<uint8_t> host_memory() override;
  uint64_t host_address() const override;

 private:
  struct Parts;  // XRT's objects
  explicit XrtPort(std::unique_ptr<Parts> parts);
  absl::Status TakeMemory(const XrtPortOptions& options);
  absl::Status Copy(uint64_t address, uint64_t size, uint8_t* to, const uint8_t* from);

  std::unique_ptr<Parts> parts_;
};

}  // namespace mnemo::xrt_card
