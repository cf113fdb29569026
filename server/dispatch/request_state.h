// One request on its way through the dispatcher, and what its client has been told of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/dispatch/dispatcher.h"
#include "server/dispatch/worker_slot.h"

namespace mnemo::dispatch {

// Guarded by the core's mutex; `sink` belongs to the thread that set `delivering`.
struct RequestState {
  // Takes out of `event` what the sink has heard already, records what is new. INTERNAL: an index is missing.
  absl::Status Accept(internal::v1::Event* event);
  // Tokens that its worker has still to work off.
  int64_t OutstandingTokens(int64_t cached_tokens) const;

  uint64_t id = 0;
  uint32_t attempt = 0;    // of the last Submit
  bool submitted = false;  // once at least
  internal::v1::Submit submit;
  std::vector<uint64_t> prefix_hashes;
  std::optional<TimePoint> deadline;
  std::shared_ptr<DispatchSink> sink;

  int worker = -1;  // it is on; -1 = queued or ended
  bool ended = false;
  bool cancelling = false;  // its worker has been told, and its last event is waited for
  int replays = 0;
  // Workers that died with it on them. From the second on they count as its own only when they had said that
  // they took it: workers that are killed together say no more.
  int deaths = 0;
  int untaken = 0;         // the others
  bool was_heard = false;  // of this attempt anything came
  std::string death_details;
  std::string numerics_id;                 // under which the sink has heard something; empty = nothing yet
  std::optional<TimePoint> stranded_time;  // since then no worker is there that could take it

  std::vector<int32_t> generated;      // the sink has heard of
  std::optional<int32_t> next_prompt;  // position of the next scored prompt token
  int64_t counted_tokens = 0;          // its part of the worker's outstanding tokens
  int64_t counted_prompt_tokens = 0;   // of these, prompt not known to be prefilled

  // A thread is calling the sink.
  bool delivering = false;
  // Events that came meanwhile, and the status of the end.
  std::vector<std::variant<internal::v1::Event, absl::Status>> outbox;
};

}  // namespace mnemo::dispatch
