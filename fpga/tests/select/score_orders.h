#pragma once

// Orders of scores that may trouble a selection, and numbers of entries that it takes.

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <random>

namespace mnemo::rtl_select {

enum class Order { kRandom, kNarrow, kEqual, kRising, kFalling, kSpike, kSaturated, kLowest, kOrders };

inline int16_t ScoreOf(Order order, uint32_t at, uint32_t count, uint32_t spike, std::mt19937& rng) {
  switch (order) {
    case Order::kNarrow:
      return static_cast<int16_t>(static_cast<int>(rng() % 5) - 2);
    case Order::kEqual:
      return 77;
    case Order::kRising:
      return static_cast<int16_t>(static_cast<int>(at * 4 % 65536) - 32768);
    case Order::kFalling:
      return static_cast<int16_t>(32767 - static_cast<int>(at * 4 % 65536));
    case Order::kSpike:
      return at == spike ? int16_t{32767} : static_cast<int16_t>(-20000 - static_cast<int>(count % 3));
    case Order::kSaturated: {
      constexpr int16_t kEnds[] = {-32768, -32767, 32767, 32766, 28672, 28671, -4096};
      return kEnds[rng() % std::size(kEnds)];
    }
    case Order::kLowest:
      return -32768;
    default:
      return static_cast<int16_t>(rng());
  }
}

inline uint32_t AnyK(uint32_t count, std::mt19937& rng) {
  switch (rng() % 4) {
    case 0:
      return 1U << rng() % 15;
    case 1:
      return std::max<uint32_t>(1, count + static_cast<uint32_t>(rng() % 3) - 1);
    case 2:
      return 1 + static_cast<uint32_t>(rng()) % 16;
    default:
      return 1 + static_cast<uint32_t>(rng()) % (count + 1);
  }
}

}  // namespace mnemo::rtl_select
