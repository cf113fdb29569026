// The events of an engine turn: what each request's caller is told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/worker/engine.h"
#include "server/worker/request.h"

namespace mnemo::worker {

// Used by the engine thread alone. Writes RequestReport.
class StepReport {
 public:
  using Clock = Request::Clock;

  // A turn of the engine thread begins; what the one before reported has been delivered.
  void BeginTurn() { ++turn_; }
  // Makes room for so many events where there is none yet.
  void Reserve(size_t count) {
    if (events_.capacity() == 0) events_.reserve(count);
  }
  // The request's event of this turn, made at the first call. Valid until the next call for another request.
  EngineEvent& EventOf(Request* request);
  // The request's event of this turn if it has output tokens; otherwise nullptr.
  EngineEvent* EventWithTokens(const Request& request);
  // Notes that the request has output now. True when this is its first.
  static bool NoteOutput(Request* request, Clock::time_point now);
  // Times and counts of the request up to `now`.
  static void FillSummary(const Request& request, Clock::time_point now, EngineEvent* event);
  // Hands the events of the turn to `sink`, if there are any.
  void Deliver(EngineSink* sink);

 private:
  uint64_t turn_ = 0;
  std::vector<EngineEvent> events_;
};

}  // namespace mnemo::worker
