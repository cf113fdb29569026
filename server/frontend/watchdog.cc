#include "server/frontend/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

namespace mnemo::frontend {
namespace {

std::optional<int64_t> NumberIn(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const char* end = text + std::strlen(text);
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(text, end, number);
  if (error != std::errc() || rest != end) return std::nullopt;
  return number;
}

}  // namespace

LoopWatch::Round LoopWatch::Next(const std::vector<dispatch::LoopTurns>& turns) {
  Round round;
  std::map<std::string, Seen> now;
  for (const dispatch::LoopTurns& loop : turns) {
    const auto before = seen_.find(loop.name);
    const bool is_stuck = before != seen_.end() && before->second.count == loop.count;
    const int missed = is_stuck ? before->second.missed + 1 : 0;
    now[loop.name] = {loop.count, missed};
    if (is_stuck) round.stuck.push_back(loop.name);
    round.rounds = std::max(round.rounds, missed);
  }
  seen_ = std::move(now);
  return round;
}

Watchdog::Watchdog(Options options) : options_(std::move(options)), thread_([this] { Loop(); }) {}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  ending_.notify_all();
  thread_.join();
}

void Watchdog::Loop() {
  ::pthread_setname_np(::pthread_self(), "watchdog");
  LoopWatch watch;
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    lock.unlock();
    options_.on_round(watch.Next(options_.ask()));
    lock.lock();
    ending_.wait_for(lock, options_.interval, [this] { return is_ending_; });
  }
}

std::chrono::milliseconds WatchdogInterval(std::chrono::milliseconds without) {
  const std::optional<int64_t> microseconds = NumberIn("WATCHDOG_USEC");
  const std::optional<int64_t> pid = NumberIn("WATCHDOG_PID");
  if (!microseconds || *microseconds <= 0 || (pid && *pid != ::getpid())) return without;
  return std::chrono::milliseconds(std::max<int64_t>(1, *microseconds / 4000));
}

}  // namespace mnemo::frontend
