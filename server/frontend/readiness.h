// Whether the server takes requests, as health checks tell it: from the count of ready workers, with a grace
// for the restart of the last one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace mnemo::frontend {

// The rule alone, without a clock. Not thread-safe.
class ReadinessRule {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit ReadinessRule(std::chrono::milliseconds grace) : grace_(grace) {}

  void SetReadyWorkers(int count, TimePoint now);
  // A drain takes effect at once, and its end too.
  void SetDraining(bool is_draining) { is_draining_ = is_draining; }
  void SetGrace(std::chrono::milliseconds grace) { grace_ = grace; }

  // True while a worker is ready, and until `grace` after the last one was lost. False before the first one,
  // and during a drain.
  bool IsReady(TimePoint now) const;
  // When IsReady turns false by itself; none if it does not.
  std::optional<TimePoint> Expiry() const;
  bool has_served() const { return has_served_; }

 private:
  std::chrono::milliseconds grace_;
  int ready_workers_ = 0;
  bool has_served_ = false;
  bool is_draining_ = false;
  TimePoint lost_time_;  // when the last ready worker was lost
};

// The rule with a thread that waits for the end of the grace. Thread-safe.
class Readiness {
 public:
  // `on_change` gets each new value, in order and never two at once; false is not told at the start. It is
  // called with a lock held: it must not block, nor call this object.
  Readiness(std::chrono::milliseconds grace, std::function<void(bool is_ready)> on_change);
  // No call of `on_change` comes after it.
  ~Readiness();
  Readiness(const Readiness&) = delete;
  Readiness& operator=(const Readiness&) = delete;

  void SetReadyWorkers(int count);
  void SetDraining(bool is_draining);
  void SetGrace(std::chrono::milliseconds grace);
  bool is_ready() const;
  // Whether a worker was ready at any time.
  bool has_served() const;

 private:
  void Loop();
  void Change(const std::function<void()>& change);
  void Tell();  // with mutex_ held

  const std::function<void(bool)> on_change_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ReadinessRule rule_;
  bool told_ = false;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace mnemo::frontend
