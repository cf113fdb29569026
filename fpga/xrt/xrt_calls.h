// XRT's calls for one card, so that tests can put others in their place.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "fpga/xrt/host_check.h"
#include "fpga/xrt/interrupt_watch.h"

namespace mnemo::xrt_card {

enum class HostMemory : uint8_t {
  kHost,  // memory of the host that the card reads and writes over PCIe, HOST[0] of the platform
  kHbm,   // memory of the card that the host maps over PCIe (peer-to-peer)
};

// An image, as its file describes it.
struct XrtImage {
  std::string platform;
  std::string uuid;
  uint32_t clock_mhz = 0;
  bool emulation = false;  // it is for XRT's software emulation
};

// The memory behind a port of the kernel.
struct PortMemory {
  uint32_t group = 0;  // XRT's number
  uint64_t bytes = 0;
};

struct MappedHost {
  std::span<uint8_t> bytes;
  uint64_t address = 0;  // the card's
};

// Each may throw what XRT throws. Memory that is taken goes with the object.
class XrtCalls {
 public:
  virtual ~XrtCalls() = default;

  virtual void Open(const std::string& device) = 0;
  virtual void Reset() = 0;
  // Loads the image and opens its kernel.
  virtual void Load(const std::string& xclbin) = 0;
  virtual std::string Name() = 0;
  virtual uint32_t ReadRegister(uint32_t offset) = 0;
  virtual void WriteRegister(uint32_t offset, uint32_t value) = 0;
  // Memories of the kernel's ports, host memory last.
  virtual std::vector<PortMemory> Ports() = 0;
  // Takes the next channel, and returns its address.
  virtual uint64_t TakeChannel(uint32_t group, uint64_t bytes) = 0;
  virtual void WriteChannel(uint32_t channel, uint64_t offset, std::span<const uint8_t> bytes) = 0;
  virtual void ReadChannel(uint32_t channel, uint64_t offset, std::span<uint8_t> bytes) = 0;
  virtual MappedHost TakeHost(HostMemory memory, uint32_t group, uint64_t bytes) = 0;
  // `clear` clears the card's status. The line is not used for longer than this object.
  virtual InterruptLine TakeInterrupts(std::function<void()> clear) = 0;
  // As XRT tells them, JSON.
  virtual std::string Electrical() = 0;
  virtual std::string Thermal() = 0;
};

std::unique_ptr<XrtCalls> MakeXrtCalls();

// NOT_FOUND: there is no such file. PERMISSION_DENIED: it cannot be read. INVALID_ARGUMENT: it is none of
// this card.
absl::StatusOr<XrtImage> ReadImage(const std::string& path);

// The world outside of this program, as a port finds it.
struct XrtHost {
  std::function<absl::StatusOr<XrtImage>(const std::string&)> read_image = ReadImage;
  std::function<absl::Status(const std::string&)> check = [](const std::string& device) {
    return CheckHost(device);
  };
  std::function<std::unique_ptr<XrtCalls>()> make_calls = MakeXrtCalls;
};

}  // namespace mnemo::xrt_card
