// How a thread waits for another one of a decode step, in its own process or across the data plane: it looks
// for at most 300 us, letting others run between looks, then sleeps. Between two submissions of a step lie
// one or two hundred microseconds; sleeping through them costs a wake-up a layer for each thread that does.
// Measured on two cores with a worker and a memory service of two threads each, decoding at 8,000 tokens with
// token_topk offloaded against the same in the worker: links waiting so and devices' teams looking for 50 us,
// yielding every 64th look, 0.775; both waiting so 0.91; teams yielding after every look 0.89.
#pragma once

#include <sched.h>

#include <chrono>

namespace mnemo {

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

}  // namespace mnemo
