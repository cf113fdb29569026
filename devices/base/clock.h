// Monotonic clocks for intervals and deadlines.
#pragma once

#include <time.h>

#include <cstdint>

namespace mnemo {

// Nanoseconds of the monotonic clock, the clock of std::chrono::steady_clock. Thread-safe, does not block.
inline int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The same clock with the resolution of the kernel's tick, a few milliseconds. A call costs a fifth of NowNs.
inline int64_t CoarseNowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace mnemo
