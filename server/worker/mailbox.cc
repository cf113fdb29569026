#include "server/worker/mailbox.h"

namespace mnemo::worker {

Mailbox::Mailbox(int max_running, int max_waiting, int max_sessions)
    : max_running_(static_cast<size_t>(max_running)),
      max_waiting_(static_cast<size_t>(max_waiting)),
      max_sessions_(static_cast<size_t>(max_sessions)) {
  live_.reserve(max_running_ + max_waiting_);
  inbox_.reserve(max_running_ + max_waiting_);
}

absl::Status Mailbox::Post(std::unique_ptr<Request> request) {
  const Key key(request->spec.id, request->spec.attempt);
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return absl::CancelledError("the worker stops");
    if (live_.size() >= max_running_ + max_waiting_) {
      return ResourceExhausted(
          "{} requests are running or waiting; allowed: at most {} (max_running {} and max_waiting {})",
          live_.size(), max_running_ + max_waiting_, max_running_, max_waiting_);
    }
    auto& slot = live_[key];
    if (slot != nullptr) {
      return InvalidArgument("id {} with attempt {} is in use by a live request", key.first, key.second);
    }
    inbox_.push_back(request.get());
    slot = std::move(request);
  }
  mail_came_.notify_one();
  return absl::OkStatus();
}

void Mailbox::Cancel(uint64_t id, uint32_t attempt) {
  {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(Key(id, attempt));
    if (found == live_.end()) return;
    found->second->cancelled.store(true, std::memory_order_relaxed);
    cancel_came_.store(true, std::memory_order_release);
  }
  mail_came_.notify_one();
}

void Mailbox::EndSession(const std::string& session_id) {
  {
    std::lock_guard lock(mutex_);
    if (ended_sessions_.size() < max_sessions_) {
      ended_sessions_.insert(session_id);
    } else {
      end_all_sessions_ = true;
    }
  }
  mail_came_.notify_one();
}

void Mailbox::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  mail_came_.notify_one();
}

bool Mailbox::Wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return mail_came_.wait_for(lock, timeout, [this] {
    return stopping_ || end_all_sessions_ || !inbox_.empty() || !ended_sessions_.empty();
  });
}

bool Mailbox::Take(std::vector<Request*>* arrived, SessionTable* sessions) {
  MNEMO_CHECK(arrived->empty());
  std::lock_guard lock(mutex_);
  arrived->swap(inbox_);
  if (end_all_sessions_) sessions->ForgetAll();
  for (const std::string& session : ended_sessions_) sessions->Forget(session);
  ended_sessions_.clear();
  end_all_sessions_ = false;
  return !stopping_;
}

void Mailbox::Destroy(Request* request) {
  std::unique_ptr<Request> gone;  // destroyed outside of the lock
  std::lock_guard lock(mutex_);
  const auto found = live_.find(Key(request->spec.id, request->spec.attempt));
  MNEMO_CHECK(found != live_.end() && found->second.get() == request);
  gone = std::move(found->second);
  live_.erase(found);
}

}  // namespace mnemo::worker
