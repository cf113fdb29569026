#pragma once

// Sizes of the tests of the RTL.

#include <cstdlib>

namespace mnemo::rtl_tests {

// Cases that a test runs: the usual number, MNEMO_RTL_CASES times (1 when it is not set).
template <typename Number>
Number Cases(Number usual) {
  const char* times = std::getenv("MNEMO_RTL_CASES");
  return times == nullptr ? usual : usual * static_cast<Number>(std::strtoull(times, nullptr, 10));
}

}  // namespace mnemo::rtl_tests
