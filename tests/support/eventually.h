#pragma once

#include <chrono>
#include <thread>

namespace mnemo::testing {

// The longest time that tests wait for a required event: long, since the machine may be busy, and longer
// under a sanitizer.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::chrono::seconds kPatience{360};
#else
inline constexpr std::chrono::seconds kPatience{90};
#endif

// Polls the condition. True when it holds within kPatience.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace mnemo::testing
