// A loop's sign of life.
#pragma once

#include <cstdint>
#include <string>

namespace mnemo::dispatch {

struct LoopTurns {
  std::string name;    // for messages: "supervision of workers"
  uint64_t count = 0;  // rises with each turn
};

}  // namespace mnemo::dispatch
