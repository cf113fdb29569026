// Events of the engine that the front end has not read yet. Never blocks the engine: while a write is under
// way the steps merge, an event a request.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstddef>
#include <cstdint>

#include "mnemo/internal/worker.pb.h"
#include "server/worker/engine.h"

namespace mnemo::worker_service {

// Not thread-safe.
class EventOutbox {
 public:
  // Appends `event` under the front end's number of the request. Events of one request come in order.
  void Add(const worker::EngineEvent& event, uint64_t id, uint32_t attempt);
  // Puts all that is pending into `out`, whose old content is recycled.
  void TakeInto(internal::v1::Events* out);
  bool empty() const { return pending_.events_size() == 0 && pending_.spans_size() == 0; }
  // About what the pending events hold in memory: grows with every token.
  size_t bytes() const { return bytes_; }

 private:
  void AddSpans(const worker::EngineEvent& event, uint64_t id, uint32_t attempt);
  internal::v1::Event* FindOrAdd(uint64_t id, uint32_t attempt);
  internal::v1::Events pending_;
  absl::flat_hash_map<uint64_t, int> index_;  // of a request's last event in pending_
  size_t bytes_ = 0;
};

}  // namespace mnemo::worker_service
