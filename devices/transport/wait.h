// How anything in the data plane waits: it looks for at most 300 us, letting others run between looks, then
// sleeps. Between two submissions of a decode step lie one or two hundred microseconds; sleeping through them
// costs two wake-ups a layer. Measured on two cores with two processes of two threads each, decoding with an
// offloaded token_topk against the same in the worker: yielding every fourth look 0.81 with 50 us and 0.84
// with 300, yielding every 64th look (a microsecond) 0.75.
#pragma once

#include <sched.h>

#include <chrono>

namespace mnemo::transport {

inline constexpr std::chrono::microseconds kSpinTime{300};

// Looks until look() is true (then true) or the time to spin is over (then false, and it is time to sleep).
template <typename Look>
bool SpinUntil(Look&& look) {
  constexpr int kLooksPerYield = 4;
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kLooksPerYield; ++i) {
      if (look()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    ::sched_yield();
  } while (std::chrono::steady_clock::now() - begin < kSpinTime);
  return false;
}

}  // namespace mnemo::transport
