#include "fpga/card/card_registers.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "devices/memory/memory_device.h"
#include "fpga/card/card_driver.h"
#include "fpga/card/fault_port.h"
#include "fpga/card/model/model_port.h"
#include "fpga/card/testing_device.h"

namespace mnemo::card {
namespace {

// A card that answers a number of looks late, on a host that gives no time at all.
class LatePort final : public CardPort {
 public:
  explicit LatePort(uint32_t looks) : looks_(looks) {}
  uint32_t advances() const { return advances_; }

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override {
    const bool late = looks_ != 0;
    if (late) --looks_;
    if (offset == layout::kCardRegControl) return late ? uint32_t{layout::kCardControlReset} : 0;
    if (offset == layout::kCardRegState) return late ? 0 : uint32_t{layout::kCardStateQuiesced};
    return absl::InvalidArgumentError("another register");
  }
  absl::Status WriteRegister(uint32_t, uint32_t) override { return absl::OkStatus(); }
  absl::Status Write(uint64_t, std::span<const uint8_t>) override { return absl::OkStatus(); }
  absl::Status Read(uint64_t, std::span<uint8_t>) override { return absl::OkStatus(); }
  std::span<uint8_t> host_memory() override { return {}; }
  uint64_t host_address() const override { return 0; }
  void Advance() override { ++advances_; }

 private:
  uint32_t looks_;
  uint32_t advances_ = 0;
};

TEST_CASE("a card is given up after looks, not by time alone") {
  for (absl::Status (*wait)(CardPort*, std::chrono::milliseconds) : {ResetCard, SettleCard}) {
    LatePort late(Patience::kLeastLooks - 1);
    CHECK(wait(&late, {}).ok());
    CHECK(late.advances() == Patience::kLeastLooks - 1);
    LatePort too_late(Patience::kLeastLooks);
    CHECK(absl::IsDeadlineExceeded(wait(&too_late, {})));
    CHECK(too_late.advances() == Patience::kLeastLooks - 1);
  }
}

TEST_CASE("an operation of a late card ends on a host that gives no time") {
  FaultPort* port = nullptr;
  CardDriverOptions card = TestDevice::OnPort([&]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
    MNEMO_ASSIGN_OR_RETURN(auto inner, model::ModelPort::Make(TestDevice::SmallModel()));
    auto made = std::make_unique<FaultPort>(std::move(inner), PortFault::kLate, 0, 1);
    port = made.get();
    return made;
  });
  card.patience = {};
  TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), std::move(card));
  REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 64, 12)) == layout::kStatusOk);
  REQUIRE(device.Append(0, 5) == layout::kStatusOk);
  std::vector<Question> questions;
  std::vector<memory_device::Operation> operations;
  for (int n = 0; n < 3; ++n) questions.push_back(device.NewQuestion(0));
  for (Question& question : questions) {
    operations.push_back({question.d, device.owner(), question.payload.data(), question.result.data()});
  }
  REQUIRE(device.driver().Submit(operations) == questions.size());
  REQUIRE(device.driver().Quiesce().ok());
  CHECK(port->happened());
  layout::Completion done[3];
  REQUIRE(device.driver().Poll(done) == questions.size());
  for (size_t n = 0; n < questions.size(); ++n) {
    CHECK(done[n].status == layout::kStatusOk);
    CHECK(questions[n].Answered());
  }
}

}  // namespace
}  // namespace mnemo::card
