// Admission: bounded counts of running requests, queued requests and tokens in flight decide whether a
// request runs now, waits, or is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "devices/base/status.h"

namespace mnemo::frontend {

struct AdmissionLimits {
  int max_running = 64;
  int max_queued = 256;
  int64_t max_tokens_in_flight = 1 << 20;
};

struct AdmissionCounts {
  int running = 0;
  int queued = 0;
  int64_t tokens_in_flight = 0;
  bool operator==(const AdmissionCounts&) const = default;
};

enum class RefusalReason { kNone, kQueueFull, kTokensInFlight, kTooManyTokens, kDraining };

// Thread-safe.
class Admission {
  struct Entry;

 public:
  // One request's place. Release or the destructor gives it back, which may start other requests (see
  // StartReady). Must not outlive the Admission. Not thread-safe.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept
        : admission_(std::exchange(other.admission_, nullptr)), entry_(std::move(other.entry_)) {}
    Ticket& operator=(Ticket&& other) noexcept {
      if (this != &other) {
        Release();
        admission_ = std::exchange(other.admission_, nullptr);
        entry_ = std::move(other.entry_);
      }
      return *this;
    }
    ~Ticket() { Release(); }
    void Release();
    bool is_held() const { return admission_ != nullptr; }

   private:
    friend class Admission;
    Ticket(Admission* admission, std::shared_ptr<Entry> entry)
        : admission_(admission), entry_(std::move(entry)) {}
    Admission* admission_ = nullptr;
    std::shared_ptr<Entry> entry_;
  };

  struct Outcome {
    // Not OK: the request is refused, and `ticket` is not held.
    absl::Status status;
    RefusalReason reason = RefusalReason::kNone;
    Ticket ticket;
  };

  // `on_change` is called at every change of the counts, with a lock held: it must be short.
  Admission(const AdmissionLimits& limits, std::function<void(const AdmissionCounts&)> on_change);

  // Queues a request of `tokens` (prompt and max_tokens). The lowest priority number runs first, then the
  // earliest arrival. StartReady calls `start` on any thread once the request may run, unless the ticket is
  // released before. Refusals: UNAVAILABLE while draining; RESOURCE_EXHAUSTED names the limit. Does not
  // block.
  Outcome Admit(int64_t tokens, int priority, std::function<void()> start);
  // Starts the requests that may run. Call it after Admit, without a lock that a `start` takes. A call during
  // another one leaves the work to that one, so that `start` may release tickets without recursion.
  void StartReady();

  void SetLimits(const AdmissionLimits& limits);
  void SetDraining(bool draining);
  bool draining() const;
  AdmissionCounts counts() const;

 private:
  struct Entry {
    int64_t tokens = 0;
    bool is_running = false;
    // Priority, then arrival.
    std::pair<int, uint64_t> key;
    std::function<void()> start;
  };
  void Leave(const std::shared_ptr<Entry>& entry);
  absl::Status Check(int64_t tokens, RefusalReason* reason) const;
  void Changed();

  mutable std::mutex mutex_;
  AdmissionLimits limits_;
  const std::function<void(const AdmissionCounts&)> on_change_;
  AdmissionCounts counts_;
  bool draining_ = false;
  bool is_starting_ = false;
  uint64_t arrivals_ = 0;
  std::map<std::pair<int, uint64_t>, std::shared_ptr<Entry>> queue_;
};

}  // namespace mnemo::frontend
