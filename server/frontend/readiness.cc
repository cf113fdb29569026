#include "server/frontend/readiness.h"

#include <utility>

namespace mnemo::frontend {

void ReadinessRule::SetReadyWorkers(int count, TimePoint now) {
  if (ready_workers_ > 0 && count == 0) lost_time_ = now;
  ready_workers_ = count;
  has_served_ = has_served_ || count > 0;
}

bool ReadinessRule::IsReady(TimePoint now) const {
  if (is_draining_) return false;
  if (ready_workers_ > 0) return true;
  return has_served_ && now < lost_time_ + grace_;
}

std::optional<ReadinessRule::TimePoint> ReadinessRule::Expiry() const {
  if (is_draining_ || ready_workers_ > 0 || !has_served_) return std::nullopt;
  return lost_time_ + grace_;
}

Readiness::Readiness(std::chrono::milliseconds grace, std::function<void(bool)> on_change)
    : on_change_(std::move(on_change)), rule_(grace), thread_([this] { Loop(); }) {}

Readiness::~Readiness() {
  {
    std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Readiness::SetReadyWorkers(int count) {
  Change([&] { rule_.SetReadyWorkers(count, std::chrono::steady_clock::now()); });
}
void Readiness::SetDraining(bool is_draining) {
  Change([&] { rule_.SetDraining(is_draining); });
}
void Readiness::SetGrace(std::chrono::milliseconds grace) {
  Change([&] { rule_.SetGrace(grace); });
}

bool Readiness::is_ready() const {
  std::lock_guard lock(mutex_);
  return told_;
}

bool Readiness::has_served() const {
  std::lock_guard lock(mutex_);
  return rule_.has_served();
}

void Readiness::Change(const std::function<void()>& change) {
  std::lock_guard lock(mutex_);
  change();
  Tell();
  changed_.notify_all();
}

void Readiness::Tell() {
  const bool is_ready = rule_.IsReady(std::chrono::steady_clock::now());
  if (is_ready == told_) return;
  told_ = is_ready;
  on_change_(is_ready);
}

void Readiness::Loop() {
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    Tell();
    // Once it has been told there is nothing to wait for but a change.
    const std::optional<ReadinessRule::TimePoint> expiry = told_ ? rule_.Expiry() : std::nullopt;
    if (expiry) {
      changed_.wait_until(lock, *expiry);
    } else {
      changed_.wait(lock);
    }
  }
}

}  // namespace mnemo::frontend
