// The memory of requests: what the pipeline (server/memory/pipeline.h) keeps of each request whose attention
// selects, from its admission to its end, through the loss of a service.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/memory/pipeline.h"
#include "server/worker/parking.h"
#include "server/worker/scheduler.h"

namespace mnemo::worker {

// Used by the engine thread alone. Writes RequestResidence, and RequestParking through Parking.
class RequestMemory {
 public:
  using Clock = Request::Clock;

  // `pipeline`: nullptr when the model has no indexed layers; all calls do nothing then. `scheduler` outlives
  // the object.
  RequestMemory(std::unique_ptr<memory::Pipeline> pipeline, const ParkingOptions& parking,
                Scheduler* scheduler);

  memory::Pipeline* pipeline() const { return pipeline_.get(); }
  const Parking& parking() const { return parking_; }

  // Appends the running requests that need memory and have none yet.
  void FindUnopened(std::vector<Request*>* unopened) const;
  // Gives a running request its index, in the service or in the worker. OK also when it is suspended instead:
  // a resident request may become the worker's own and waits for pages, or is parked until a service has
  // room. Any other status refuses the request: RESOURCE_EXHAUSTED, the service is full; UNAVAILABLE, it is
  // absent; FAILED_PRECONDITION, the worker has none.
  absl::Status Open(Request* request);

  // Hands the complete pages of resident running requests to the service, so that their pages may go. Blocks
  // until it has them. False: a service is lost with what it kept, and ParkLost is due.
  bool KeepResidents();
  // Parks the running requests whose K and V are lost; they begin again.
  void ParkLost(Clock::time_point now);
  // Puts parked requests back into the scheduler once they have a place. Appends those that have waited for
  // too long to `expired`; they end as Parking::Expired says.
  void TendParked(Clock::time_point now, std::vector<Request*>* expired);
  // Whether K and V of the request were lost with a service.
  static bool Lost(const Request& request);

  // The cost of the request up to now, over all services that it had.
  std::vector<memory::MemoryStepStat> StepsOf(const Request& request) const;
  // Closes what the request has, which ends. Its times in the worker instead of the service, and the reason
  // of the last one, go into `fallbacks` and `reason`, unless it has no memory.
  void Close(Request* request, int32_t* fallbacks, std::string* reason);
  // The request is not parked any more; false: it was not.
  bool Unpark(Request* request) { return parking_.Remove(request); }

 private:
  absl::StatusOr<memory::SequenceMemory*> OpenInPipeline(const Request& request);
  // `why`: as fallbacks are counted.
  void StayInWorker(Request* request, std::string_view why);
  void Park(Request* request, Clock::time_point now, bool service_full);
  void Close(Request* request);

  const std::unique_ptr<memory::Pipeline> pipeline_;
  Parking parking_;
  Scheduler* const scheduler_;
  std::vector<Request*> moved_;  // of a call
};

}  // namespace mnemo::worker
