// The driver over a card in software: answers, rings that wrap, bounds of time, and ports with faults.
#include "fpga/card/card_driver.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "fpga/card/fault_port.h"
#include "fpga/card/testing_device.h"
#include "proto/layout/card.h"
#include "proto/layout/card_hash.h"
#include "proto/layout/record.h"

namespace mnemo::card {
namespace {

using layout::Completion;

// Registers that a test sets read so, whatever the card says.
class OtherRegisters final : public CardPort {
 public:
  OtherRegisters(std::unique_ptr<CardPort> inner, std::map<uint32_t, uint32_t> registers)
      : inner_(std::move(inner)), registers_(std::move(registers)) {}
  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override {
    const auto found = registers_.find(offset);
    if (found != registers_.end()) return found->second;
    return inner_->ReadRegister(offset);
  }
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override {
    return inner_->WriteRegister(offset, value);
  }
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override {
    return inner_->Write(address, bytes);
  }
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override {
    return inner_->Read(address, bytes);
  }
  std::span<uint8_t> host_memory() override { return inner_->host_memory(); }
  uint64_t host_address() const override { return inner_->host_address(); }
  void Advance() override { inner_->Advance(); }

 private:
  std::unique_ptr<CardPort> inner_;
  const std::map<uint32_t, uint32_t> registers_;
};

TestDevice::MakePort With(const std::map<uint32_t, uint32_t>& registers) {
  return [registers]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
    MNEMO_ASSIGN_OR_RETURN(auto inner, model::ModelPort::Make(TestDevice::SmallModel()));
    return std::make_unique<OtherRegisters>(std::move(inner), registers);
  };
}

std::string Refused(const memory_device::MemoryDeviceOptions& options, CardDriverOptions card,
                    absl::StatusCode code) {
  const absl::Status status = CardDriver::Create(options, std::move(card)).status();
  CHECK(status.code() == code);
  return std::string(status.message());
}

// Two indexes of two formats, and questions to both.
void Fill(TestDevice& device) {
  REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 64, 12)) == layout::kStatusOk);
  REQUIRE(device.Create(1, SpecOf(layout::kFormatCodes4, 32, 12, 2, 1)) == layout::kStatusOk);
  REQUIRE(device.Append(0, 5) == layout::kStatusOk);
  REQUIRE(device.Append(1, 3) == layout::kStatusOk);
}

std::vector<Question> Questions(TestDevice& device, int count) {
  std::vector<Question> questions;
  for (int n = 0; n < count; ++n) questions.push_back(device.NewQuestion(static_cast<uint32_t>(n % 2)));
  return questions;
}

TEST_CASE("a card that the driver does not know is refused with both values") {
  const auto refused = [](const std::map<uint32_t, uint32_t>& registers) {
    return Refused(TestDevice::SmallOptions(), TestDevice::OnPort(With(registers)),
                   absl::StatusCode::kFailedPrecondition);
  };
  CHECK(refused({{layout::kCardRegMagic, 0}}) == "magic of the card: 0x0, this program's is 0x444d4e4d");
  CHECK(refused({{layout::kCardRegVersion, 0x20000}}) ==
        "version of the card: 0x20000, this program's is 0x10000");
  CHECK(refused({{layout::kCardRegCardHash, 1}}).find("card hash of the card: ") == 0);
  CHECK(refused({{layout::kCardRegLayoutHash + 4, 1}}).find("layout hash of the card: ") == 0);
  CHECK(refused({{layout::kCardRegShape, 3 | 4 << 8 | 16 << 16}}) ==
        "channels of the card: 3; this program knows powers of two up to 32");
  CHECK(refused({{layout::kCardRegShape, 2 | 16 << 16}}).find("shape of the card: 0 queries of a pass") == 0);
  CHECK(refused({{layout::kCardRegChannels + 12, 0}}) ==
        "channel 1 of the card: 0 beats, at least 1 is needed");
  CHECK(refused({{layout::kCardRegBankWords, 1}}).find("the card's score banks of 1 words in 2 channels") ==
        0);
}

TEST_CASE("options that no card serves are refused with their names") {
  memory_device::MemoryDeviceOptions options = TestDevice::SmallOptions();
  options.max_group = 0;
  CHECK(Refused(options, TestDevice::OnPort(With({})), absl::StatusCode::kInvalidArgument) ==
        "max_group 0, max_k 256, max_queries 8, max_heads 64: each must be at least 1");
  options = TestDevice::SmallOptions();
  options.max_operations = 100'000;
  CHECK(Refused(options, TestDevice::OnPort(With({})), absl::StatusCode::kInvalidArgument) ==
        "max_operations: 100000; allowed are 1 to 65536");
  options = TestDevice::SmallOptions();
  options.max_k = 16'384;
  options.max_operations = 60'000;
  CHECK(Refused(options, TestDevice::OnPort(With({})), absl::StatusCode::kInvalidArgument)
            .find("host memory of the card: 1048576 bytes; 60000 operations under way need ") == 0);
  for (const double clock : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), 1e-9, 1e9}) {
    CAPTURE(clock);
    CardDriverOptions card = TestDevice::OnPort(With({}));
    card.clock_mhz = clock;
    const std::string message =
        Refused(TestDevice::SmallOptions(), std::move(card), absl::StatusCode::kInvalidArgument);
    CHECK(message.find("clock_mhz: ") == 0);
  }
}

TEST_CASE("scans between appends, forks and truncations see what was stored before them") {
  TestDevice device;
  std::mt19937& random = device.random;
  Fill(device);
  for (int step = 0; step < 30; ++step) {
    const auto id = static_cast<uint32_t>(random() % 2);
    const uint32_t pages = device.stored().at(id).pages();
    if (random() % 3 == 0 && pages > 1) {
      REQUIRE(device.Truncate(id, 1 + static_cast<uint32_t>(random() % pages)) == layout::kStatusOk);
    } else if (pages < 12) {
      REQUIRE(device.Append(id, 1) == layout::kStatusOk);
    }
    if (step % 10 == 5) {
      REQUIRE(device.Fork(2, id, static_cast<uint32_t>(random() % (device.stored().at(id).pages() + 1))) ==
              layout::kStatusOk);
      REQUIRE(device.Free(id) == layout::kStatusOk);
      REQUIRE(device.Fork(id, 2, device.stored().at(2).pages()) == layout::kStatusOk);
      REQUIRE(device.Free(2) == layout::kStatusOk);
    }
    std::vector<Question> questions = Questions(device, 6);
    device.CheckAnswers(&questions);
  }
  device.CheckNothingLeaks();
}

TEST_CASE("indices of rings and sequence numbers wrap") {
  for (const uint32_t first : {0xFFFF'FFFFU, 0xFFFF'FFF0U, 0x7FFF'FFFEU}) {
    CAPTURE(first);
    CardDriverOptions card = TestDevice::OnPort(nullptr);
    card.first_index = first;
    TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), std::move(card));
    Fill(device);
    for (int round = 0; round < 4; ++round) {
      std::vector<Question> questions = Questions(device, 10);
      device.CheckAnswers(&questions);
    }
    // The rings begin there again.
    REQUIRE(device.driver().Reset().ok());
    std::vector<Question> questions = Questions(device, 10);
    device.CheckAnswers(&questions);
  }
}

TEST_CASE("operations larger than the areas of host memory become several descriptors") {
  model::ModelOptions model = TestDevice::SmallModel();
  memory_device::MemoryDeviceOptions options = TestDevice::SmallOptions();
  uint32_t fewest = UINT32_MAX;
  for (const uint64_t bytes : {48U << 10, 256U << 10, 4U << 20}) {
    CAPTURE(bytes);
    model.host_bytes = bytes;
    TestDevice device(model, options);
    REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 256, 4, 1, 8)) == layout::kStatusOk);
    REQUIRE(device.Append(0, 2) == layout::kStatusOk);
    Question question = device.NewQuestion(0);
    layout::Descriptor d = question.d;
    d.first_head = 0;
    d.heads = 8;
    d.queries = 8;
    d.group = 16;
    d.begin = d.k1 = 0;
    d.end = 2 * layout::kPageTokens;
    d.k = 100;
    std::vector<Question> questions;
    for (int n = 0; n < 3; ++n) questions.push_back(device.QuestionOf(d));
    device.CheckAnswers(&questions);
    double descriptors = 0;
    for (const auto& counter : device.driver().Counters()) {
      if (counter.name == "device_descriptors_total") descriptors = counter.value;
    }
    CHECK(descriptors >= 3);
    fewest = std::min(fewest, static_cast<uint32_t>(descriptors));
    if (bytes == 48U << 10) CHECK(descriptors > 3 * 8);  // less than a position each
  }
  CHECK(fewest == 3);
}

TEST_CASE("a watchdog that fires fails what is under way, and the card serves again") {
  CardDriverOptions card = TestDevice::OnPort(nullptr);
  card.watchdog_cycles = 100;
  TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), std::move(card));
  Fill(device);
  for (int round = 0; round < 3; ++round) {
    std::vector<Question> questions = Questions(device, 5);
    for (Question& question : questions) {
      question.d.begin = 0;
      question.d.end = layout::kPageTokens;
    }
    const std::vector<Completion> done = device.Run(&questions);
    REQUIRE(done.size() == 5);
    for (const Completion& one : done) CHECK(one.status == layout::kStatusDeviceFailed);
    CHECK(std::string(device.driver().failure().message()).find("the card failed: 1 (CardFailure)") == 0);
    REQUIRE(device.driver().Quiesce().ok());
  }
  device.CheckNothingLeaks();
}

TEST_CASE("refusals name the field, and neighbours of a refused operation are answered") {
  TestDevice device;
  Fill(device);
  using Change = std::function<void(layout::Descriptor&)>;
  const std::pair<Change, Completion> cases[] = {
      {[](auto& d) { d.index_id = 7; },
       {.status = layout::kStatusUnknownIndex, .detail = offsetof(layout::Descriptor, index_id)}},
      {[](auto& d) { ++d.index_generation; },
       {.status = layout::kStatusStaleGeneration, .detail = offsetof(layout::Descriptor, index_generation)}},
      {[](auto& d) { d.layer_slot = 1; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, layer_slot)}},
      {[](auto& d) { d.first_head = 2; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, heads)}},
      {[](auto& d) { d.heads = 0; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, heads)}},
      {[](auto& d) { d.k = 257; },
       {.status = layout::kStatusUnsupported, .detail = offsetof(layout::Descriptor, k)}},
      {[](auto& d) { d.format = layout::kFormatCodes8; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, format)}},
      {[](auto& d) { d.end = 6 * layout::kPageTokens; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, end)}},
      {[](auto& d) { d.begin = d.end + 1; },
       {.status = layout::kStatusBadField, .detail = offsetof(layout::Descriptor, end)}},
      {[](auto& d) { d.group = 17; },
       {.status = layout::kStatusUnsupported, .detail = offsetof(layout::Descriptor, group)}},
      {[](auto& d) { d.group = 0; },
       {.status = layout::kStatusUnsupported, .detail = offsetof(layout::Descriptor, group)}},
  };
  for (size_t n = 0; n < std::size(cases); ++n) {
    CAPTURE(n);
    std::vector<Question> questions;
    for (int count = 0; count < 3; ++count) questions.push_back(device.NewQuestion(0));
    const Question good = questions[1];
    cases[n].first(questions[1].d);
    const std::vector<Completion> done = device.Run(&questions);
    REQUIRE(done.size() == 3);
    CHECK(done[1].status == cases[n].second.status);
    CHECK(done[1].detail == cases[n].second.detail);
    CHECK(done[1].count == 0);
    CHECK(questions[1].result == good.result);  // untouched
    for (const size_t other : {0, 2}) {
      CHECK(done[other].status == layout::kStatusOk);
      CHECK(questions[other].Answered());
    }
  }
}

// One life of a device over a port with a fault: every answer is right or says that the device failed.
struct Life {
  bool made = false;      // the driver came to be
  bool happened = false;  // the fault
  int failed = 0;         // answers, appends and silences
};

// Runs operations; what fails is recovered from, and then all of it must go well.
void Live(TestDevice& device, Life* life) {
  const auto failed = [&] {
    ++life->failed;
    device.Recover();
  };
  while (!device.stored().empty()) REQUIRE(device.Free(device.stored().begin()->first) == layout::kStatusOk);
  for (int round = 0; round < 4; ++round) {
    for (uint32_t id = 0; id < 2; ++id) {
      if (!device.stored().contains(id)) {
        REQUIRE(device.Create(id, SpecOf(id == 0 ? layout::kFormatCodes2 : layout::kFormatCodes8, 64, 12)) ==
                layout::kStatusOk);
      }
      const uint16_t status = device.Append(id, 2);
      REQUIRE((status == layout::kStatusOk || status == layout::kStatusDeviceFailed));
      if (status != layout::kStatusOk) failed();
    }
    std::vector<Question> questions;
    for (uint32_t n = 0; n < 4; ++n) {
      if (device.stored().contains(n % 2)) questions.push_back(device.NewQuestion(n % 2));
    }
    const std::vector<Completion> done = device.Run(&questions);
    bool good = done.size() == questions.size();
    for (size_t n = 0; n < done.size(); ++n) {
      REQUIRE((done[n].status == layout::kStatusOk || done[n].status == layout::kStatusDeviceFailed));
      if (done[n].status == layout::kStatusOk) {
        REQUIRE(questions[n].Answered());
      } else {
        good = false;
      }
    }
    if (!good) failed();
    if (round == 1 && device.stored().contains(0)) {
      if (device.stored().contains(2)) REQUIRE(device.Free(2) == layout::kStatusOk);
      REQUIRE(device.Fork(2, 0, device.stored().at(0).pages()) == layout::kStatusOk);
      REQUIRE(device.Free(0) == layout::kStatusOk);
    }
  }
  if (!device.driver().Quiesce().ok()) failed();
}

Life LifeWith(PortFault fault, uint64_t place) {
  Life life;
  FaultPort* port = nullptr;
  int made = 0;
  CardDriverOptions card = TestDevice::OnPort([&]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
    MNEMO_ASSIGN_OR_RETURN(auto inner, model::ModelPort::Make(TestDevice::SmallModel()));
    // The first port alone has the fault.
    auto faulty =
        std::make_unique<FaultPort>(std::move(inner), made++ == 0 ? fault : PortFault::kNone, place, place);
    if (made == 1) port = faulty.get();
    return faulty;
  });
  CardDriverOptions trial = card;
  if (!CardDriver::Create(TestDevice::SmallOptions(), std::move(trial)).ok())
    return {.made = false, .happened = true};
  made = 0;
  TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(), std::move(card));
  life.made = true;
  Live(device, &life);
  life.happened = made > 1 || port->happened();
  if (!life.happened && fault != PortFault::kNone) return life;  // the place is behind this life
  device.Recover();
  Life after;
  Live(device, &after);
  CHECK(after.failed == 0);
  device.CheckMemory();
  device.CheckNothingLeaks();
  return life;
}

TEST_CASE("a port that fails at any place gives no wrong answer, leaks nothing and hangs nothing") {
  for (int n = 0; n <= static_cast<int>(kLastPortFault); ++n) {
    const auto fault = static_cast<PortFault>(n);
    CAPTURE(n);
    const bool of_calls =
        fault == PortFault::kGone || fault == PortFault::kOneFails || fault == PortFault::kRegister;
    int happened = 0;
    int failed = 0;
    // Calls grow in number, so that places of the start and of the work are both met.
    for (uint64_t place = 0; place < (of_calls ? 300U : 12U); place += of_calls ? 1 + place / 4 : 1) {
      CAPTURE(place);
      const Life life = LifeWith(fault, place);
      happened += life.happened ? 1 : 0;
      failed += life.failed > 0 || !life.made ? 1 : 0;
    }
    if (fault == PortFault::kNone) {
      CHECK(failed == 0);
    } else {
      CHECK(happened > 3);
    }
    if (fault == PortFault::kLate) CHECK(failed == 0);
    if (fault != PortFault::kNone && fault != PortFault::kLate) CHECK(failed > 3);
  }
}

}  // namespace
}  // namespace mnemo::card
