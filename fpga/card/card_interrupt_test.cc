// The driver and interrupts: a caller that sleeps on the descriptor is woken, and Quiesce waits by them.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fpga/card/card_driver.h"
#include "fpga/card/fault_port.h"
#include "fpga/card/testing_device.h"
#include "proto/layout/card.h"

namespace mnemo::card {
namespace {

using layout::Completion;

// A card that runs beside its driver, as hardware does: in Work alone, which tells interrupts by a
// descriptor.
class BesidePort final : public CardPort {
 public:
  explicit BesidePort(std::unique_ptr<model::ModelPort> inner) : inner_(std::move(inner)) {}
  ~BesidePort() override { ::close(fd_); }

  void Work() {
    inner_->Advance();
    const absl::StatusOr<bool> came = inner_->WaitInterrupt({});
    REQUIRE(came.ok());
    if (*came) REQUIRE(::eventfd_write(fd_, 1) == 0);
  }
  // The next wait fails.
  void Break() { broken_ = true; }
  int questions() const { return questions_; }

  absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) override { return inner_->ReadRegister(offset); }
  absl::Status WriteRegister(uint32_t offset, uint32_t value) override {
    if (offset == layout::kCardRegAwait) ++questions_;
    MNEMO_RETURN_IF_ERROR(inner_->WriteRegister(offset, value));
    const absl::StatusOr<bool> came = inner_->WaitInterrupt({});
    if (came.ok() && *came) REQUIRE(::eventfd_write(fd_, 1) == 0);
    return came.status();
  }
  absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) override {
    return inner_->Write(address, bytes);
  }
  absl::Status Read(uint64_t address, std::span<uint8_t> bytes) override {
    return inner_->Read(address, bytes);
  }
  std::span<uint8_t> host_memory() override { return inner_->host_memory(); }
  uint64_t host_address() const override { return inner_->host_address(); }
  bool interrupts() const override { return true; }
  absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) override {
    if (std::exchange(broken_, false)) return absl::UnavailableError("no interrupt comes");
    if (most.count() > 0) Work();
    eventfd_t count = 0;
    return ::eventfd_read(fd_, &count) == 0;
  }
  int interrupt_fd() const override { return fd_; }

 private:
  std::unique_ptr<model::ModelPort> inner_;
  const int fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  bool broken_ = false;
  int questions_ = 0;
};

CardDriverOptions OnPatiently(TestDevice::MakePort make_port) {
  CardDriverOptions card = TestDevice::OnPort(std::move(make_port));
  card.patience = std::chrono::milliseconds(10000);
  return card;
}

struct Sleeper {
  BesidePort* port = nullptr;
  TestDevice device;
  std::vector<Question> questions;
  std::vector<Completion> done;

  Sleeper()
      : device(TestDevice::SmallModel(), TestDevice::SmallOptions(),
               OnPatiently([this]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
                 MNEMO_ASSIGN_OR_RETURN(auto inner, model::ModelPort::Make(TestDevice::SmallModel()));
                 auto made = std::make_unique<BesidePort>(std::move(inner));
                 port = made.get();
                 return made;
               })) {
    REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 64, 12)) == layout::kStatusOk);
    REQUIRE(device.Append(0, 5) == layout::kStatusOk);
  }
  // Returns how many the driver took.
  size_t Submit(size_t count) {
    const size_t first = questions.size();
    for (size_t n = 0; n < count; ++n) questions.push_back(device.NewQuestion(0));
    std::vector<memory_device::Operation> operations;
    for (size_t n = first; n < questions.size(); ++n) {
      questions[n].d.seq = static_cast<uint32_t>(n);
      operations.push_back(
          {questions[n].d, device.owner(), questions[n].payload.data(), questions[n].result.data()});
    }
    const size_t took = device.driver().Submit(operations);
    questions.resize(first + took);
    return took;
  }
  void Poll() {
    Completion some[4];
    const size_t count = device.driver().Poll(some);
    done.insert(done.end(), some, some + count);
  }
  bool Idle() const { return done.size() == questions.size(); }
};

bool Readable(int fd) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, 0) == 1;
}

TEST_CASE("a caller that sleeps is woken by each completion, whenever the card works") {
  Sleeper sleeper;
  sleeper.questions.reserve(400);  // what the device has stays in place
  CHECK(sleeper.device.driver().event_fd() == -1);
  std::mt19937& random = sleeper.device.random;
  while (sleeper.questions.size() < 300 || !sleeper.Idle()) {
    if (sleeper.questions.size() < 300) sleeper.Submit(random() % 4);
    for (uint64_t n = random() % 3; n > 0; --n) sleeper.port->Work();
    if (random() % 2 != 0) sleeper.Poll();
    if (sleeper.Idle()) continue;
    const int fd = sleeper.device.driver().event_fd();
    if (fd < 0) {
      sleeper.Poll();  // all is finished, or the rest is the driver's
      continue;
    }
    // It sleeps; the card ends what it has.
    for (int n = 0; !Readable(fd); ++n) {
      REQUIRE(n < 4000);
      sleeper.port->Work();
    }
    const size_t before = sleeper.done.size();
    sleeper.Poll();
    if (sleeper.done.size() > before) continue;
    // A question of before the last completion was answered, or a part of an operation has ended.
    CHECK_FALSE(Readable(fd));
  }
  for (size_t n = 0; n < sleeper.done.size(); ++n) {
    REQUIRE(sleeper.done[n].status == layout::kStatusOk);
    REQUIRE(sleeper.questions[n].Answered());
  }
  CHECK(sleeper.device.driver().event_fd() == -1);
}

TEST_CASE("one question is asked for each wait, and none while the caller polls") {
  Sleeper sleeper;
  sleeper.questions.reserve(8);
  REQUIRE(sleeper.Submit(2) == 2);
  sleeper.Poll();
  sleeper.Poll();
  CHECK(sleeper.port->questions() == 0);
  const int fd = sleeper.device.driver().event_fd();
  REQUIRE(fd >= 0);
  CHECK(sleeper.device.driver().event_fd() == fd);
  CHECK(sleeper.port->questions() == 1);
  CHECK_FALSE(Readable(fd));
  sleeper.Poll();
  CHECK(sleeper.device.driver().event_fd() == fd);
  CHECK(sleeper.port->questions() == 1);
}

TEST_CASE("a failure of the card wakes, and is told at the first poll") {
  Sleeper sleeper;
  sleeper.questions.reserve(8);
  REQUIRE(sleeper.Submit(2) == 2);
  const int fd = sleeper.device.driver().event_fd();
  REQUIRE(fd >= 0);
  REQUIRE(sleeper.port->WriteRegister(layout::kCardRegWatchdog, 1).ok());
  for (int n = 0; !Readable(fd); ++n) {
    REQUIRE(n < 100);
    sleeper.port->Work();
  }
  sleeper.Poll();
  REQUIRE(sleeper.done.size() == 2);
  for (const Completion& one : sleeper.done) CHECK(one.status == layout::kStatusDeviceFailed);
  CHECK(std::string(sleeper.device.driver().failure().message()).find("the card failed: 1") == 0);
  sleeper.device.Recover();
}

TEST_CASE("a port whose interrupts fail fails what is under way") {
  for (const bool quiesce : {false, true}) {
    Sleeper sleeper;
    sleeper.questions.reserve(8);
    REQUIRE(sleeper.Submit(2) == 2);
    REQUIRE(sleeper.device.driver().event_fd() >= 0);
    sleeper.port->Break();
    if (quiesce) CHECK(sleeper.device.driver().Quiesce().ok());
    sleeper.Poll();
    REQUIRE(sleeper.done.size() == 2);
    for (const Completion& one : sleeper.done) CHECK(one.status == layout::kStatusDeviceFailed);
    CHECK(sleeper.device.driver().failure().message() == "no interrupt comes");
    sleeper.device.Recover();
    REQUIRE(sleeper.Submit(1) == 1);
    REQUIRE(sleeper.device.driver().Quiesce().ok());
    sleeper.Poll();
    REQUIRE(sleeper.Idle());
    CHECK(sleeper.done.back().status == layout::kStatusOk);
  }
}

TEST_CASE("Quiesce ends without interrupts too, when they are lost") {
  for (const PortFault fault : {PortFault::kNone, PortFault::kNoInterrupt, PortFault::kLate}) {
    FaultPort* port = nullptr;
    TestDevice device(TestDevice::SmallModel(), TestDevice::SmallOptions(),
                      OnPatiently([&]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
                        MNEMO_ASSIGN_OR_RETURN(auto inner, model::ModelPort::Make(TestDevice::SmallModel()));
                        auto made = std::make_unique<FaultPort>(std::move(inner), fault, 0, 1);
                        port = made.get();
                        return made;
                      }));
    REQUIRE(device.Create(0, SpecOf(layout::kFormatCodes2, 64, 12)) == layout::kStatusOk);
    REQUIRE(device.Append(0, 5) == layout::kStatusOk);
    std::vector<Question> questions;
    for (int n = 0; n < 6; ++n) questions.push_back(device.NewQuestion(0));
    std::vector<memory_device::Operation> operations;
    for (Question& question : questions) {
      operations.push_back({question.d, device.owner(), question.payload.data(), question.result.data()});
    }
    REQUIRE(device.driver().Submit(operations) == 6);
    REQUIRE(device.driver().Quiesce().ok());
    Completion done[6];
    REQUIRE(device.driver().Poll(done) == 6);
    for (int n = 0; n < 6; ++n) {
      REQUIRE(done[n].status == layout::kStatusOk);
      REQUIRE(questions[static_cast<size_t>(n)].Answered());
    }
    if (fault == PortFault::kLate) CHECK(port->happened());
  }
}

}  // namespace
}  // namespace mnemo::card
