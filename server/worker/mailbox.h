// The mailbox: what other threads give the engine thread, and the live requests by their names.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"
#include "server/worker/request.h"
#include "server/worker/session_table.h"

namespace mnemo::worker {

class Mailbox {
 public:
  // At most max_running + max_waiting requests are live. At most `max_sessions` names of ended sessions wait;
  // of more, all sessions end, which is no error, since a session's prefix is a hint.
  Mailbox(int max_running, int max_waiting, int max_sessions);

  // Any thread; these do not block.
  //
  // A number for Request::arrival.
  uint64_t NextArrival() { return arrivals_.fetch_add(1); }
  // RESOURCE_EXHAUSTED: too many are live; INVALID_ARGUMENT: one of that id and attempt is; CANCELLED:
  // stopped.
  absl::Status Post(std::unique_ptr<Request> request);
  // Marks a live request; without one of that name nothing happens.
  void Cancel(uint64_t id, uint32_t attempt);
  void EndSession(const std::string& session_id);
  void Stop();

  // The engine thread.
  //
  // Waits until there is mail, at most for `timeout`. False: there is none.
  bool Wait(std::chrono::milliseconds timeout);
  // Exchanges `arrived`, which is empty, for the requests that were posted, and forgets ended sessions.
  // False: stopped.
  bool Take(std::vector<Request*>* arrived, SessionTable* sessions);
  // Whether any request was cancelled since the last call.
  bool TakeCancelled() { return cancel_came_.exchange(false, std::memory_order_acquire); }
  // Ends the life of a request that was posted.
  void Destroy(Request* request);

 private:
  using Key = std::pair<uint64_t, uint32_t>;  // id and attempt

  const size_t max_running_;
  const size_t max_waiting_;
  const size_t max_sessions_;
  std::atomic<uint64_t> arrivals_{0};
  std::atomic<bool> cancel_came_{false};

  std::mutex mutex_;  // guards what follows
  std::condition_variable mail_came_;
  absl::flat_hash_map<Key, std::unique_ptr<Request>> live_;
  std::vector<Request*> inbox_;
  absl::flat_hash_set<std::string> ended_sessions_;
  bool end_all_sessions_ = false;
  bool stopping_ = false;
};

}  // namespace mnemo::worker
