// A card that was lost comes back step by step: here a card in software behind XRT's calls. Each step that
// fails is named with what to do, holds nothing, and leaves the next attempt its chance.
#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "devices/memory/xrt/xrt_memory_device.h"
#include "fpga/card/model/model_port.h"
#include "fpga/card/testing_device.h"
#include "proto/layout/card.h"

namespace mnemo::memory_device::xrt {
namespace {

using card::Question;
using card::TestDevice;
using xrt_card::MappedHost;
using xrt_card::PortMemory;

enum class Fault {
  kNone,
  kNoImage,
  kOtherClock,
  kNoDriver,
  kNoCard,
  kResetRefused,
  kResetHangs,
  kOtherPlatform,
  kSilent,
  kOtherHash,
  kNoChannelMemory,
  kNoHostMemory,
  kOtherShape,
};

constexpr uint32_t kClockMhz = 250;
constexpr uint64_t kChannelBytes = uint64_t{4} << 20;
constexpr uint64_t kHostBytes = uint64_t{1} << 20;

// The card and its host, which outlive every opening.
struct World {
  explicit World() { Renew(2); }

  void Renew(uint32_t channels) {
    card::model::ModelOptions options = TestDevice::SmallModel();
    options.shape.channels = channels;
    options.channel_bytes = kChannelBytes;
    options.host_bytes = kHostBytes;
    model = card::model::ModelPort::Make(options).value();
    bases.clear();
    for (uint32_t n = 0; n < channels; ++n) {
      bases.push_back(uint64_t{model->ReadRegister(layout::kCardRegChannels + 8 * n).value()} *
                      layout::kCardBeatBytes);
    }
  }

  std::atomic<Fault> fault = Fault::kNone;  // a reset that hangs is another thread's, and reads it
  std::atomic<bool> lost = false;           // until a reset
  std::unique_ptr<card::model::ModelPort> model;
  std::vector<uint64_t> bases;
  std::atomic<int> open = 0;    // objects with XRT's calls
  std::atomic<int> resets = 0;  // begun
  std::promise<void> let_go;    // a reset that hangs
};

class FakeCalls final : public xrt_card::XrtCalls {
 public:
  explicit FakeCalls(World* world) : world_(world) { ++world_->open; }
  ~FakeCalls() override { --world_->open; }

  void Open(const std::string&) override { Refuse(Fault::kNoCard, "Could not open device with index '0'"); }
  void Reset() override {
    ++world_->resets;
    Refuse(Fault::kResetRefused, "Operation not permitted");
    if (world_->fault == Fault::kResetHangs) {
      world_->let_go.get_future().wait();
      return;
    }
    world_->lost = false;
    world_->Renew(world_->fault == Fault::kOtherShape ? 4 : 2);
  }
  void Load(const std::string&) override { Refuse(Fault::kOtherPlatform, "Invalid argument"); }
  std::string Name() override { throw std::runtime_error("no name"); }
  uint32_t ReadRegister(uint32_t offset) override {
    Touch();
    if (world_->fault == Fault::kSilent) return ~0U;
    const uint32_t value = world_->model->ReadRegister(offset).value();
    return world_->fault == Fault::kOtherHash && offset == layout::kCardRegLayoutHash ? ~value : value;
  }
  void WriteRegister(uint32_t offset, uint32_t value) override {
    Touch();
    CHECK(world_->model->WriteRegister(offset, value).ok());
  }
  std::vector<PortMemory> Ports() override {
    std::vector<PortMemory> ports(world_->bases.size() + 1, {.group = 0, .bytes = kChannelBytes});
    return ports;
  }
  uint64_t TakeChannel(uint32_t, uint64_t bytes) override {
    CHECK(bytes == kChannelBytes);
    if (channels_ == 1) Refuse(Fault::kNoChannelMemory, "failed to allocate bo");
    return world_->bases.at(channels_++);
  }
  void WriteChannel(uint32_t channel, uint64_t offset, std::span<const uint8_t> bytes) override {
    Touch();
    CHECK(world_->model->Write(world_->bases.at(channel) + offset, bytes).ok());
  }
  void ReadChannel(uint32_t channel, uint64_t offset, std::span<uint8_t> bytes) override {
    Touch();
    CHECK(world_->model->Read(world_->bases.at(channel) + offset, bytes).ok());
  }
  MappedHost TakeHost(xrt_card::HostMemory, uint32_t, uint64_t) override {
    Refuse(Fault::kNoHostMemory, "failed to allocate host memory buffer");
    return {.bytes = world_->model->host_memory(), .address = world_->model->host_address()};
  }
  xrt_card::InterruptLine TakeInterrupts(std::function<void()>) override {
    throw std::runtime_error("no interrupts");
  }
  std::string Electrical() override { throw std::runtime_error("no sensors"); }
  std::string Thermal() override { throw std::runtime_error("no sensors"); }

 private:
  void Refuse(Fault fault, const char* why) const {
    if (world_->fault == fault) throw std::runtime_error(why);
  }
  // The card works while the host looks at it.
  void Touch() {
    if (world_->lost) throw std::runtime_error("Input/output error");
    world_->model->Advance();
  }

  World* const world_;
  uint32_t channels_ = 0;
};

xrt_card::XrtHost HostOf(World* world) {
  return {
      .read_image = [world](const std::string& path) -> absl::StatusOr<xrt_card::XrtImage> {
        if (world->fault == Fault::kNoImage) return absl::NotFoundError("xclbin: " + path + ": gone");
        return xrt_card::XrtImage{.platform = "u55c",
                                  .uuid = "1",
                                  .clock_mhz = world->fault == Fault::kOtherClock ? 200 : kClockMhz};
      },
      .check = [world](const std::string&) -> absl::Status {
        if (world->fault == Fault::kNoDriver) return absl::FailedPreconditionError("`modprobe xocl`");
        return absl::OkStatus();
      },
      .make_calls = [world] { return std::make_unique<FakeCalls>(world); },
  };
}

card::CardDriverOptions CardOf(World* world) {
  const XrtOptions options{.port = {.xclbin = "card.xclbin", .host_bytes = kHostBytes},
                           .reset_patience = std::chrono::milliseconds(30)};
  card::CardDriverOptions card = DriverOptions(options, HostOf(world)).value();
  card.patience = std::chrono::milliseconds(50);
  return card;
}

void CheckThatItAnswers(TestDevice* device) {
  REQUIRE(device->Create(1, card::SpecOf(layout::kFormatCodes2, 64, 8)) == layout::kStatusOk);
  REQUIRE(device->Append(1, 4) == layout::kStatusOk);
  std::vector<Question> questions;
  for (int n = 0; n < 3; ++n) questions.push_back(device->NewQuestion(1));
  device->CheckAnswers(&questions);
}

void Lose(World* world, TestDevice* device) {
  world->lost = true;
  std::vector<Question> questions;
  questions.push_back(device->NewQuestion(1));
  const std::vector<layout::Completion> failed = device->Run(&questions);
  REQUIRE(failed.size() == 1);
  CHECK(failed[0].status == layout::kStatusDeviceFailed);
}

struct Case {
  Fault fault;
  absl::StatusCode code;
  const char* says;
  const char* advice;
};

const Case kCases[] = {
    {Fault::kNoImage, absl::StatusCode::kNotFound, "xclbin: card.xclbin: gone", ""},
    {Fault::kOtherClock, absl::StatusCode::kFailedPrecondition,
     "xclbin card.xclbin: its clock is 200 MHz, and was 250 when the service began",
     "start the service anew, or put the image of before back"},
    {Fault::kNoDriver, absl::StatusCode::kFailedPrecondition, "", "`modprobe xocl`"},
    {Fault::kNoCard, absl::StatusCode::kNotFound, "device 0: Could not open device with index '0'",
     "`xbutil examine` lists the cards"},
    {Fault::kResetRefused, absl::StatusCode::kUnavailable, "reset of device 0: Operation not permitted",
     "`xbutil reset` may tell more"},
    {Fault::kResetHangs, absl::StatusCode::kDeadlineExceeded,
     "reset of device 0: XRT has not returned within 30 ms", "a cold boot always helps"},
    {Fault::kOtherPlatform, absl::StatusCode::kFailedPrecondition,
     "loading card.xclbin, an image for u55c: Invalid argument",
     "`xbutil examine` tells the card's platform"},
    {Fault::kSilent, absl::StatusCode::kFailedPrecondition, "magic of the card is 0xffffffff",
     "`xbutil reset` brings a card back"},
    {Fault::kOtherHash, absl::StatusCode::kFailedPrecondition, "layout hash of the card is",
     "fpga/build makes one"},
    {Fault::kNoChannelMemory, absl::StatusCode::kResourceExhausted,
     "channel 1, 4194304 bytes: failed to allocate bo", "hbm_bytes asks for less"},
    {Fault::kNoHostMemory, absl::StatusCode::kFailedPrecondition, "1048576 bytes of host memory",
     "`xbutil configure --host-mem` enables it"},
    {Fault::kOtherShape, absl::StatusCode::kFailedPrecondition,
     "the card that came back has another shape: 4 channels", "start the service anew"},
};

TEST_CASE("each step of an attachment that fails is named, and a good card is attached later") {
  for (const Case& of : kCases) {
    CAPTURE(static_cast<int>(of.fault));
    World world;
    {
      TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), CardOf(&world));
      CheckThatItAnswers(&device);
      CHECK(world.resets == 0);
      Lose(&world, &device);
      world.fault = of.fault;
      for (int attempt = 1; attempt <= 3; ++attempt) {
        CAPTURE(attempt);
        const absl::Status reset = device.driver().Reset();
        INFO(reset.message());
        CHECK(reset.code() == of.code);
        CHECK(std::string(reset.message()).find(of.says) != std::string::npos);
        CHECK(std::string(reset.message()).find(of.advice) != std::string::npos);
        // One reset that hangs holds what it works on, and no other begins.
        const bool hangs = of.fault == Fault::kResetHangs;
        CHECK(world.open == (hangs ? 1 : 0));
        if (hangs) CHECK(world.resets == 1);
        // Without a card nothing is taken.
        std::vector<uint8_t> bytes(64);
        const Operation operation{layout::Descriptor{}, device.owner(), bytes.data(), bytes.data()};
        CHECK(device.driver().Submit(std::span(&operation, 1)) == 0);
      }
      world.fault = Fault::kNone;
      if (of.fault == Fault::kResetHangs) world.let_go.set_value();
      device.Recover();
      CHECK(device.stored().empty());
      CheckThatItAnswers(&device);
      device.CheckNothingLeaks();
      CHECK(world.open == 1);
    }
    CHECK(world.open == 0);
  }
}

TEST_CASE("an image of another clock is only refused by a driver that counts by the first one's") {
  World world;
  world.fault = Fault::kOtherClock;
  TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), CardOf(&world));
  CheckThatItAnswers(&device);
  Lose(&world, &device);
  device.Recover();
  CheckThatItAnswers(&device);
  world.fault = Fault::kNone;
  Lose(&world, &device);
  const absl::Status reset = device.driver().Reset();
  CHECK(std::string(reset.message()).find("its clock is 250 MHz, and was 200") != std::string::npos);
  world.fault = Fault::kOtherClock;
  device.Recover();
  CheckThatItAnswers(&device);
}

TEST_CASE("a reset may throw what has no text") {
  xrt_card::HotReset reset;
  const absl::Status status = reset.Run("0000:3b:00.1", [] { throw std::runtime_error(""); });
  CHECK(absl::IsUnavailable(status));
  CHECK(std::string(status.message()).find("reset of device 0000:3b:00.1: no reason is told; ") == 0);
  CHECK(reset.Run("0", [] {}).ok());
}

}  // namespace
}  // namespace mnemo::memory_device::xrt
