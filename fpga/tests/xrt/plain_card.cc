// A device process for tests of XrtPort alone: registers that keep what is written, a shape of two channels,
// and one operation: a write to register kCopy copies a beat from a channel's start to host memory's start.
// With MNEMO_PLAIN_CARD_HASH in the environment its layout hash is that number.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "fpga/xrt/device_process.h"
#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/layout_hash.h"

namespace {

using namespace mnemo;  // NOLINT(google-build-using-namespace)

constexpr uint32_t kCopy = 0xF00;  // value: the channel

class PlainCard final : public xrt_card::EmulatedCard {
 public:
  uint32_t ReadRegister(uint32_t offset) override {
    if (offset == layout::kCardRegMagic) return layout::kCardMagic;
    if (offset == layout::kCardRegVersion) return layout::kCardMajor << 16 | layout::kCardMinor;
    if (offset / 8 == layout::kCardRegCardHash / 8) return Half(layout::kCardHash, offset);
    if (offset / 8 == layout::kCardRegLayoutHash / 8) {
      const char* const other = std::getenv("MNEMO_PLAIN_CARD_HASH");
      return Half(other == nullptr ? layout::kLayoutHash : std::strtoull(other, nullptr, 10), offset);
    }
    if (offset == layout::kCardRegShape) return 2 | 4 << 8 | 16 << 16;
    return registers_[offset];
  }
  void WriteRegister(uint32_t offset, uint32_t value) override {
    registers_[offset] = value;
    if (offset != kCopy) return;
    const uint64_t from = uint64_t{registers_[layout::kCardRegChannels + 8 * value]} * layout::kCardBeatBytes;
    const auto host = memory_.rbegin();  // XRT gives it the highest address
    std::memcpy(host->second.data(), memory_.at(from).data(), layout::kCardBeatBytes);
    registers_[kCopy + 4] = 1;
  }
  void SetMemory(uint64_t address, std::span<uint8_t> memory) override {
    if (memory.empty()) {
      memory_.erase(address);
    } else {
      memory_[address] = memory;
    }
  }
  bool Run() override { return false; }

 private:
  static uint32_t Half(uint64_t pair, uint32_t offset) {
    return static_cast<uint32_t>(offset % 8 == 0 ? pair : pair >> 32);
  }

  std::map<uint32_t, uint32_t> registers_;
  std::map<uint64_t, std::span<uint8_t>> memory_;
};

}  // namespace

int main() {
  const std::string path =
      std::string("/tmp/") + std::getenv("USER") + "/" + std::getenv("EMULATION_SOCKETID");
  auto process = xrt_card::DeviceProcess::Connect(path, std::make_unique<PlainCard>());
  const absl::Status end = process.ok() ? (*process)->Serve() : process.status();
  if (!end.ok()) std::fprintf(stderr, "plain_card: %s\n", std::string(end.message()).c_str());
  return end.ok() ? 0 : 1;
}
