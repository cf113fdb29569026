// The thread that waits for interrupts, over a line that the test raises.
#include "fpga/xrt/interrupt_watch.h"

#include <poll.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>

namespace mnemo::xrt_card {
namespace {

using std::chrono::milliseconds;

// A level that stays up until it is taken.
class Line {
 public:
  InterruptLine Calls() {
    return {.raised = [this](milliseconds most) { return Raised(most); }, .take = [this] { Take(); }};
  }
  void Raise() {
    const std::lock_guard lock(mutex_);
    up_ = true;
    changed_.notify_all();
  }
  void Break() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    changed_.notify_all();
  }
  int taken() {
    const std::lock_guard lock(mutex_);
    return taken_;
  }

 private:
  bool Raised(milliseconds most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, most, [this] { return up_ || broken_; });
    if (broken_) throw std::runtime_error("no such device");
    return up_;
  }
  void Take() {
    const std::lock_guard lock(mutex_);
    up_ = false;
    ++taken_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool up_ = false;
  bool broken_ = false;
  int taken_ = 0;
};

constexpr milliseconds kLong{60'000};

bool Readable(int fd, milliseconds most) {
  pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&ready, 1, static_cast<int>(most.count())) == 1;
}

TEST_CASE("an interrupt is taken once, and wakes who polls") {
  Line line;
  auto made = InterruptWatch::Start(line.Calls());
  REQUIRE(made.ok());
  InterruptWatch& watch = **made;
  CHECK_FALSE(watch.Wait(milliseconds(0)).value());
  CHECK_FALSE(Readable(watch.fd(), milliseconds(0)));
  for (int n = 1; n <= 3; ++n) {
    line.Raise();
    CHECK(Readable(watch.fd(), kLong));
    CHECK(watch.Wait(milliseconds(0)).value());
    CHECK(line.taken() == n);
    CHECK_FALSE(watch.Wait(milliseconds(0)).value());
    CHECK_FALSE(Readable(watch.fd(), milliseconds(0)));
  }
  line.Raise();
  CHECK(watch.Wait(kLong).value());
}

TEST_CASE("an interrupt that nobody took does not keep the thread from ending") {
  Line line;
  auto made = InterruptWatch::Start(line.Calls());
  REQUIRE(made.ok());
  line.Raise();
  REQUIRE(Readable((*made)->fd(), kLong));
  made->reset();
  CHECK(line.taken() == 1);
}

TEST_CASE("a failure of XRT wakes who polls, and stays") {
  Line line;
  auto made = InterruptWatch::Start(line.Calls());
  REQUIRE(made.ok());
  InterruptWatch& watch = **made;
  line.Break();
  CHECK(Readable(watch.fd(), kLong));
  for (int n = 0; n < 2; ++n) {
    const absl::Status status = watch.Wait(kLong).status();
    CHECK(status.code() == absl::StatusCode::kUnavailable);
    CHECK(status.message() == "interrupts of the card: no such device");
  }
}

}  // namespace
}  // namespace mnemo::xrt_card
