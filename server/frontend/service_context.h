// What the services of one front end share.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "server/dispatch/dispatcher.h"
#include "server/frontend/admission.h"
#include "server/frontend/attention_check.h"
#include "server/frontend/prompt_pass.h"
#include "server/frontend/served_model.h"
#include "server/frontend/streams.h"
#include "server/frontend/text_pool.h"
#include "server/telemetry/metrics.h"

namespace mnemo::frontend {

// Values of the configuration that a reload may change under running requests.
struct Tunables {
  std::atomic<int> max_tokens{0};
  std::atomic<int> retry_pushback_ms{500};
  std::atomic<int> slow_reader_max_tokens{65536};
  std::atomic<int> slow_reader_timeout_ms{60000};
};

// All pointees outlive the services. Thread-safe.
struct ServiceContext {
  const ServedModel* model = nullptr;
  const AttentionServing* attention = nullptr;
  dispatch::Dispatcher* dispatcher = nullptr;
  telemetry::Metrics* metrics = nullptr;
  Admission* admission = nullptr;
  Streams* streams = nullptr;
  TextPool* text_pool = nullptr;
  TextPool* chat_pool = nullptr;  // short chats: rendering waits for another process
  // What prompts go through between prepare and admit, in this order.
  std::vector<PromptPass*> passes;
  Tunables* tunables = nullptr;
  int reserve_tokens = 0;         // engine.reserve_tokens
  int64_t max_message_bytes = 0;  // server.max_message_bytes
};

}  // namespace mnemo::frontend
