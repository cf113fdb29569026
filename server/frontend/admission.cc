#include "server/frontend/admission.h"

#include <algorithm>

namespace mnemo::frontend {

Admission::Admission(const AdmissionLimits& limits, std::function<void(const AdmissionCounts&)> on_change)
    : limits_(limits), on_change_(std::move(on_change)) {}

void Admission::Ticket::Release() {
  Admission* admission = std::exchange(admission_, nullptr);
  if (admission == nullptr) return;
  const std::shared_ptr<Entry> entry = std::move(entry_);
  admission->Leave(entry);
  admission->StartReady();
}

absl::Status Admission::Check(int64_t tokens, RefusalReason* reason) const {
  if (draining_) {
    *reason = RefusalReason::kDraining;
    return Unavailable("draining: no new requests are taken; try another server or later");
  }
  if (tokens > limits_.max_tokens_in_flight) {
    *reason = RefusalReason::kTooManyTokens;
    return ResourceExhausted(
        "prompt + max_tokens: {} tokens are above limits.max_tokens_in_flight ({}) even alone; lower "
        "sampling.max_tokens",
        tokens, limits_.max_tokens_in_flight);
  }
  if (counts_.tokens_in_flight + tokens > limits_.max_tokens_in_flight) {
    *reason = RefusalReason::kTokensInFlight;
    return ResourceExhausted(
        "limits.max_tokens_in_flight: {} tokens in flight and {} of this request are more than {}",
        counts_.tokens_in_flight, tokens, limits_.max_tokens_in_flight);
  }
  // A request that can run at once passes through the queue without counting against it.
  const int running_places = std::max(0, limits_.max_running - counts_.running);
  if (counts_.queued >= limits_.max_queued + running_places) {
    *reason = RefusalReason::kQueueFull;
    return ResourceExhausted(
        "queue full: {} requests run (limits.max_running {}) and {} wait (limits.max_queued {})",
        counts_.running, limits_.max_running, counts_.queued, limits_.max_queued);
  }
  return absl::OkStatus();
}

Admission::Outcome Admission::Admit(int64_t tokens, int priority, std::function<void()> start) {
  Outcome outcome;
  std::lock_guard lock(mutex_);
  outcome.status = Check(tokens, &outcome.reason);
  if (!outcome.status.ok()) return outcome;
  auto entry = std::make_shared<Entry>();
  entry->tokens = tokens;
  entry->key = {priority, arrivals_++};
  entry->start = std::move(start);
  queue_.emplace(entry->key, entry);
  ++counts_.queued;
  counts_.tokens_in_flight += tokens;
  Changed();
  outcome.ticket = Ticket(this, std::move(entry));
  return outcome;
}

void Admission::StartReady() {
  {
    std::lock_guard lock(mutex_);
    if (is_starting_) return;
    is_starting_ = true;
  }
  while (true) {
    std::function<void()> start;
    {
      std::lock_guard lock(mutex_);
      if (queue_.empty() || counts_.running >= limits_.max_running) {
        is_starting_ = false;
        return;
      }
      const std::shared_ptr<Entry> entry = queue_.begin()->second;
      queue_.erase(queue_.begin());
      entry->is_running = true;
      --counts_.queued;
      ++counts_.running;
      Changed();
      start = std::move(entry->start);
    }
    start();
  }
}

void Admission::Leave(const std::shared_ptr<Entry>& entry) {
  // Destroyed without the lock: it may own other objects.
  std::function<void()> unused;
  std::lock_guard lock(mutex_);
  if (entry->is_running) {
    --counts_.running;
  } else {
    queue_.erase(entry->key);
    --counts_.queued;
    unused = std::move(entry->start);
  }
  counts_.tokens_in_flight -= entry->tokens;
  Changed();
}

void Admission::Changed() {
  if (on_change_) on_change_(counts_);
}

void Admission::SetLimits(const AdmissionLimits& limits) {
  {
    std::lock_guard lock(mutex_);
    limits_ = limits;
  }
  StartReady();
}

void Admission::SetDraining(bool draining) {
  std::lock_guard lock(mutex_);
  draining_ = draining;
}

bool Admission::draining() const {
  std::lock_guard lock(mutex_);
  return draining_;
}

AdmissionCounts Admission::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace mnemo::frontend
