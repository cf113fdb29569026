// State that the services and requests of one front end share.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "server/dispatch/dispatcher.h"
#include "server/frontend/admission.h"
#include "server/frontend/attention_check.h"
#include "server/frontend/held_calls.h"
#include "server/frontend/prompt_pass.h"
#include "server/frontend/served_model.h"
#include "server/frontend/streams.h"
#include "server/frontend/text_pool.h"
#include "server/telemetry/energy/energy_monitor.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

// Settings that a reload may change while requests run. Thread-safe.
struct Tunables {
  std::atomic<int> max_tokens{0};
  std::atomic<int> retry_pushback_ms{500};
  std::atomic<int> slow_reader_max_tokens{65536};
  std::atomic<int> slow_reader_timeout_ms{60000};
};

// All pointees outlive the services and the requests, and are thread-safe. Constant once a request has begun.
struct ServiceContext {
  const ServedModel* model = nullptr;
  const AttentionServing* attention = nullptr;
  dispatch::Dispatcher* dispatcher = nullptr;
  telemetry::Metrics* metrics = nullptr;
  // nullptr: the machine has neither a meter nor a model of energy.
  const attribution::EnergyMonitor* energy = nullptr;
  Admission* admission = nullptr;
  Streams* streams = nullptr;
  HeldCalls* held_calls = nullptr;
  TextPool* text_pool = nullptr;
  // For short chats, whose rendering waits for another process.
  TextPool* chat_pool = nullptr;
  // The passes between prepare and admit, in their order.
  std::vector<PromptPass*> passes;
  Tunables* tunables = nullptr;
  // engine.reserve_tokens and server.max_message_bytes.
  int reserve_tokens = 0;
  int64_t max_message_bytes = 0;
};

}  // namespace mnemo::frontend
