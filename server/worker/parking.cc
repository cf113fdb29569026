#include "server/worker/parking.h"

#include <cstddef>

#include "devices/kv_cache.h"
#include "server/memory/placement.h"

namespace mnemo::worker {

Parking::Parking(const ParkingOptions& options) : options_(options) {
  parked_.reserve(static_cast<size_t>(options.max_live));
}

void Parking::Park(Request* request, Clock::time_point now, bool service_full) {
  if (!request->parking.lost_at.has_value()) request->parking.lost_at = now;
  request->parking.retry_at = service_full ? now + kRetryInterval : now;
  parked_.push_back(request);
}

void Parking::Sort(Clock::time_point now, bool service_attached, std::vector<Request*>* ready,
                   std::vector<Request*>* expired) {
  std::erase_if(parked_, [&](Request* request) {
    if ((service_attached && now >= request->parking.retry_at) || MayStay(*request)) {
      ready->push_back(request);
      return true;
    }
    if (now - *request->parking.lost_at >= options_.service_wait) expired->push_back(request);
    return false;
  });
}

bool Parking::Remove(Request* request) { return std::erase(parked_, request) > 0; }

bool Parking::MayStay(const Request& request) const {
  return !memory::ChoosePlacement(request.spec.attention.placement, {}, request.has_begun()).insists &&
         request.max_positions() <= options_.kv_pages * devices::kPageTokens;
}

absl::Status Parking::Expired() const {
  return Unavailable("memory.kv_wait_ms: for {} ms there was no memory service with room for K and V",
                     options_.service_wait.count());
}

}  // namespace mnemo::worker
