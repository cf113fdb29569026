// The device process of XRT's software emulation: it answers XRT's calls over a Unix socket and lets a card
// run between them. An unmodified program of the host thus reaches a simulated card through XRT.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "devices/base/mapping.h"
#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::xrt_card {

// The card behind the socket. One thread.
class EmulatedCard {
 public:
  virtual ~EmulatedCard() = default;
  virtual uint32_t ReadRegister(uint32_t offset) = 0;
  virtual void WriteRegister(uint32_t offset, uint32_t value) = 0;
  // A buffer object came or, with an empty span, went: whole beats of 64 bytes. The memory stays at its place
  // until then.
  virtual void SetMemory(uint64_t address, std::span<uint8_t> memory) = 0;
  // Lets it run for some milliseconds at most. False: nothing is under way.
  virtual bool Run() = 0;
};

class DeviceProcess {
 public:
  // Connects to XRT's socket. UNAVAILABLE: nothing listens there.
  static absl::StatusOr<std::unique_ptr<DeviceProcess>> Connect(const std::string& socket_path,
                                                                std::unique_ptr<EmulatedCard> card);
  ~DeviceProcess();
  DeviceProcess(const DeviceProcess&) = delete;
  DeviceProcess& operator=(const DeviceProcess&) = delete;

  // Serves until the other side closes or breaks off. INVALID_ARGUMENT: a call that is not understood.
  absl::Status Serve();

 private:
  // Memory of one buffer object, in a file that the host may map too.
  struct Buffer {
    UniqueFd file;
    Mapping memory;
  };
  static std::span<uint8_t> BytesOf(const Buffer& buffer);
  DeviceProcess(UniqueFd socket, std::unique_ptr<EmulatedCard> card);
  absl::StatusOr<std::string> Answer(uint32_t api, const std::string& call);
  absl::StatusOr<std::string> Allocate(const std::string& call);
  absl::StatusOr<std::string> Copy(uint32_t api, const std::string& call);
  absl::StatusOr<std::string> Registers(uint32_t api, const std::string& call);
  // The bytes of a buffer; an empty span where the range is not within one.
  std::span<uint8_t> Find(uint64_t address, uint64_t size);

  UniqueFd socket_;
  std::unique_ptr<EmulatedCard> card_;
  std::map<uint64_t, Buffer> buffers_;  // by address
  bool closed_ = false;
};

}  // namespace mnemo::xrt_card
