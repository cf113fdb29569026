// Energy of operations on a card: by its own counter of power, else by the model.
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/memory/index_table.h"
#include "fpga/card/card_driver.h"
#include "fpga/card/model/model_port.h"
#include "proto/layout/payload.h"

namespace mnemo::card {
namespace {

constexpr uint32_t kDim = 64;
constexpr uint32_t kTokens = 1024;
constexpr uint32_t kBest = 10;

// The card in software, with a counter of power. No value: it has none, or has lost it.
class PoweredPort final : public CardPort {
 public:
  explicit PoweredPort(const std::optional<double>* watts)
      : watts_(watts), port_(model::ModelPort::Make({.shape = {.channels = 2}}).value()) {}

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override { return port_->ReadRegister(offset); }
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override {
    return port_->WriteRegister(offset, value);
  }
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override {
    return port_->Write(address, bytes);
  }
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override {
    return port_->Read(address, bytes);
  }
  std::span<uint8_t> host_memory() override { return port_->host_memory(); }
  uint64_t host_address() const override { return port_->host_address(); }
  void Advance() override { port_->Advance(); }
  std::optional<double> watts() override { return *watts_; }

 private:
  const std::optional<double>* const watts_;
  std::unique_ptr<model::ModelPort> port_;
};

std::unique_ptr<CardDriver> Driver(const std::optional<double>* watts, std::optional<EnergyFigures> figures) {
  CardDriverOptions card;
  card.kind = "powered";
  card.make_port = [watts]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
    return std::make_unique<PoweredPort>(watts);
  };
  card.energy = figures;
  return CardDriver::Create({.kind = "powered", .name = "one"}, std::move(card)).value();
}

// The completion of one query over an index of its own.
layout::Completion Ask(CardDriver* driver) {
  const auto table = memory_device::IndexTable::Create({}, &driver->memory()).value();
  const uint32_t owner = table->AddOwner({.quota_bytes = 8 << 20, .max_indexes = 1}).value();
  layout::IndexSpec spec{};
  spec.max_tokens = kTokens;
  spec.layer_slots = spec.heads = 1;
  spec.dim = kDim;
  spec.record_format = layout::kFormatCodes8;
  layout::Descriptor d{};
  d.op = layout::kOpCreate;
  REQUIRE(table->Create(owner, d, spec).status == layout::kStatusOk);
  const std::vector<float> keys(size_t{kTokens} * kDim, 1.0F);
  d.op = layout::kOpAppend;
  d.heads = 1;
  d.format = layout::kFormatF32;
  d.end = kTokens;
  REQUIRE(table->Append(owner, d, reinterpret_cast<const uint8_t*>(keys.data())).status == layout::kStatusOk);
  layout::Descriptor query{};
  query.op = layout::kOpScoreSelect;
  query.heads = query.group = query.queries = 1;
  query.score_op = layout::kScoreDot;
  query.group_op = layout::kGroupMax;
  query.select_op = layout::kSelectTopK;
  query.format = layout::kFormatCodes8;
  query.end = kTokens;
  query.k = kBest;
  const std::vector<uint8_t> payload(layout::QueryBlockBytes(1, kDim));
  std::vector<uint8_t> result(layout::ResultBlockBytes(layout::kSelectTopK, 0, kBest, kDim));
  const memory_device::Operation operation{query, owner, payload.data(), result.data()};
  REQUIRE(driver->Submit({&operation, 1}) == 1);
  layout::Completion done{};
  while (driver->Poll({&done, 1}) == 0) {
  }
  REQUIRE(done.status == layout::kStatusOk);
  REQUIRE(done.score_ns > 0);
  return done;
}

TEST_CASE("a card with a counter of power tells its energy by it") {
  std::optional<double> watts = 2000;
  const auto driver = Driver(&watts, kU55cEnergy);
  CHECK(driver->energy_source() == "powered");
  const layout::Completion done = Ask(driver.get());
  CHECK(done.energy_uj == MicrojoulesOf(uint64_t{done.score_ns} + done.select_ns, 2000.0));
  CHECK(done.energy_uj > 0);
  // Without an answer of the counter nothing is known, and the model's figures are not taken for it.
  watts.reset();
  CHECK(Ask(driver.get()).energy_uj == layout::kEnergyUnknown);
  CHECK(driver->energy_source() == "powered");
}

TEST_CASE("a card without a counter has the model's energy, or none") {
  const std::optional<double> none;
  const auto modelled = Driver(&none, EnergyFigures{.idle_watts = 1e6});
  CHECK(modelled->energy_source() == "model");
  const uint32_t energy = Ask(modelled.get()).energy_uj;
  CHECK(energy != layout::kEnergyUnknown);
  CHECK(energy > 0);
  const auto without = Driver(&none, std::nullopt);
  CHECK(without->energy_source().empty());
  CHECK(Ask(without.get()).energy_uj == layout::kEnergyUnknown);
}

}  // namespace
}  // namespace mnemo::card
