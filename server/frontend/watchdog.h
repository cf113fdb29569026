// Watches that the loops of the process turn, for systemd's watchdog and for the health service "live".
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/dispatch/loop_turns.h"

namespace mnemo::frontend {

// Compares the counts of successive rounds. Not thread-safe.
class LoopWatch {
 public:
  struct Round {
    // Loops that did not turn since the round before, which had asked them to.
    std::vector<std::string> stuck;
    // For how many rounds in a row one of these has not turned; 0 when all did.
    int rounds = 0;
  };

  // `turns`: of all loops, after which each is asked for another turn. A loop that appears gets a round of
  // time.
  Round Next(const std::vector<dispatch::LoopTurns>& turns);

 private:
  struct Seen {
    uint64_t count = 0;
    int missed = 0;
  };
  std::map<std::string, Seen> seen_;
};

// A thread that makes a round in each interval.
class Watchdog {
 public:
  struct Options {
    std::chrono::milliseconds interval{5000};
    // Counts so far; asks each loop for another turn. Must not block.
    std::function<std::vector<dispatch::LoopTurns>()> ask;
    // The outcome of each round, on the watchdog's thread. Must not block.
    std::function<void(const LoopWatch::Round& round)> on_round;
  };

  explicit Watchdog(Options options);
  // No callback runs after it.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void Loop();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable ending_;
  bool is_ending_ = false;
  std::thread thread_;
};

// A quarter of what systemd grants (WATCHDOG_USEC, where WATCHDOG_PID is this process or absent), else
// `without`.
std::chrono::milliseconds WatchdogInterval(std::chrono::milliseconds without);

}  // namespace mnemo::frontend
