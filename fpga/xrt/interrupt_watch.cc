#include "fpga/xrt/interrupt_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <system_error>
#include <utility>

namespace mnemo::xrt_card {
namespace {

constexpr std::chrono::milliseconds kLook{100};  // until the thread looks whether it should end

}  // namespace

absl::StatusOr<std::unique_ptr<InterruptWatch>> InterruptWatch::Start(InterruptLine line) {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) {
    return absl::ResourceExhaustedError(
        fmt::format("eventfd for interrupts: {}", std::generic_category().message(errno)));
  }
  return std::unique_ptr<InterruptWatch>(new InterruptWatch(std::move(line), std::move(event)));
}

InterruptWatch::InterruptWatch(InterruptLine line, UniqueFd event)
    : line_(std::move(line)), event_(std::move(event)), thread_([this] { Run(); }) {}

InterruptWatch::~InterruptWatch() {
  stops_ = true;
  thread_.join();
}

void InterruptWatch::Run() {
  try {
    while (!stops_) {
      if (!line_.raised(kLook)) continue;
      line_.take();
      Tell();
    }
  } catch (const std::exception& error) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = absl::UnavailableError(fmt::format("interrupts of the card: {}", error.what()));
    }
    Tell();
  }
}

void InterruptWatch::Tell() {
  // Full after 2^64 - 2 interrupts that nobody took: it is readable then all the same.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

absl::StatusOr<bool> InterruptWatch::Wait(std::chrono::milliseconds most) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return failure_;
  }
  pollfd ready{.fd = event_.get(), .events = POLLIN, .revents = 0};
  const int came = ::poll(&ready, 1, static_cast<int>(std::min<int64_t>(most.count(), INT32_MAX)));
  if (came <= 0) return false;  // a signal's interruption is an early end
  uint64_t count = 0;
  if (::read(event_.get(), &count, sizeof count) != sizeof count) return false;
  const std::lock_guard lock(mutex_);
  if (!failure_.ok()) return failure_;
  return true;
}

}  // namespace mnemo::xrt_card
