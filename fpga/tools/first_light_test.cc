// First light of the card in software, and of one with an error.
#include "fpga/tools/first_light.h"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/memory/card_model/card_model_memory_device.h"
#include "fpga/card/model/model_port.h"
#include "proto/layout/card.h"

namespace mnemo::first_light {
namespace {

using memory_device::MemoryDevice;
using memory_device::Operation;

std::unique_ptr<MemoryDevice> Model() {
  const memory_device::MemoryDeviceOptions options{
      .kind = "card-model", .name = "one", .device_options = {{"channels", "2"}}};
  return memory_device::card_model::Kind().create(options).value();
}

// A device that is right but for one bit of each result, or that does not answer its operations.
class FaultyDevice final : public MemoryDevice {
 public:
  enum class Fault { kBit, kRefuses };
  explicit FaultyDevice(Fault fault) : fault_(fault), device_(Model()) {}

  const std::string& name() const override { return device_->name(); }
  std::string_view kind() const override { return device_->kind(); }
  const layout::AttachHello& caps() const override { return device_->caps(); }
  memory_device::RecordMemory& memory() override { return device_->memory(); }
  size_t Submit(std::span<const Operation> operations) override {
    if (fault_ == Fault::kRefuses) return 0;
    result_ = operations[0].result;
    return device_->Submit(operations);
  }
  size_t Poll(std::span<layout::Completion> completions) override {
    const size_t count = device_->Poll(completions);
    if (count > 0) result_[kByte] ^= 4;
    return count;
  }
  absl::Status Quiesce() override { return device_->Quiesce(); }
  absl::Status Reset() override { return device_->Reset(); }

  static constexpr size_t kByte = 77;

 private:
  const Fault fault_;
  std::unique_ptr<MemoryDevice> device_;
  uint8_t* result_ = nullptr;
};

TEST_CASE("a card that is right says so for each format") {
  std::string lines;
  REQUIRE(CompareWithReference(Model().get(), &lines).ok());
  for (const char* bits : {"2 bits: 100 of 2112 tokens", "4 bits: 100 of", "8 bits: 100 of"}) {
    CHECK(lines.find(bits) != std::string::npos);
  }
}

TEST_CASE("a card that is wrong is told by the byte, one that takes nothing by that") {
  std::string lines;
  FaultyDevice wrong(FaultyDevice::Fault::kBit);
  const absl::Status status = CompareWithReference(&wrong, &lines);
  CHECK(status.code() == absl::StatusCode::kInternal);
  CHECK(status.message().find("2 bits: byte 77 of the result is ") == 0);
  CHECK(lines.empty());
  FaultyDevice refuses(FaultyDevice::Fault::kRefuses);
  CHECK(CompareWithReference(&refuses, &lines).message() == "the device takes no operation");
}

TEST_CASE("the registers of a card are described") {
  auto port = card::model::ModelPort::Make({}).value();
  const std::string lines = DescribeCard(port.get());
  CHECK(lines.find(fmt::format("register 0x010, magic: {:#x}\n", uint32_t{layout::kCardMagic})) == 0);
  CHECK(lines.find("register 0x044, state: 0x1\n") != std::string::npos);
}

}  // namespace
}  // namespace mnemo::first_light
