// Parking: requests that wait for a memory service that keeps their K and V.
//
// A resident request is parked when the service that kept its K and V is lost, or when none has room for them
// after the request has begun. It holds no pages meanwhile and is not the scheduler's. It leaves when
//   - a service is attached and it may ask again: it is admitted anew, from its first position on;
//   - the worker may keep its K and V instead (MayStay): likewise;
//   - it has waited for memory.kv_wait_ms: it ends UNAVAILABLE.
#pragma once

#include <chrono>
#include <span>
#include <vector>

#include "devices/base/status.h"
#include "server/worker/request.h"

namespace mnemo::worker {

struct ParkingOptions {
  std::chrono::milliseconds service_wait{0};  // memory.kv_wait_ms
  int kv_pages = 0;                           // the worker's own pool
  int max_live = 0;                           // requests; no more are ever parked
};

// Used by the engine thread alone. Does not allocate after it is made. Requests belong to the caller.
class Parking {
 public:
  using Clock = Request::Clock;

  // A service that was full is not asked again before that.
  static constexpr std::chrono::milliseconds kRetryInterval{50};

  explicit Parking(const ParkingOptions& options);

  // `request` is no longer the scheduler's. `service_full`: there is a service without room for it.
  void Park(Request* request, Clock::time_point now, bool service_full);
  // The request has a place again, in a service or in the worker: the next wait counts from its own
  // beginning.
  static void Settle(Request* request) { request->parking = {}; }
  // Takes out the requests that are to be admitted again, in the order in which they were parked. They are
  // appended to `ready`, and those that have waited too long to `expired`; the latter stay until Remove.
  void Sort(Clock::time_point now, bool service_attached, std::vector<Request*>* ready,
            std::vector<Request*>* expired);
  // False: it is not parked.
  bool Remove(Request* request);

  // Whether the worker's own pool may keep K and V of a request that was to be resident. True when the
  // request does not insist on the service any more and an empty pool has room for it.
  bool MayStay(const Request& request) const;
  // UNAVAILABLE; how a request ends that has waited too long.
  absl::Status Expired() const;

  bool empty() const { return parked_.empty(); }
  std::span<Request* const> requests() const { return parked_; }

 private:
  const ParkingOptions options_;
  std::vector<Request*> parked_;
};

}  // namespace mnemo::worker
