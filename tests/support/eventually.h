#pragma once

#include <chrono>
#include <thread>

namespace mnemo::testing {

// How long tests wait for what must happen; long, since it is the machine that may be busy.
inline constexpr std::chrono::seconds kPatience{90};

// Whether the condition, which is asked again and again, becomes true within kPatience.
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
