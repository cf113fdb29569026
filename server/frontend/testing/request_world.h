// All that a request core needs, without gRPC; the workers are the test.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/frontend/request_core.h"
#include "server/frontend/testing/fake_dispatcher.h"
#include "server/frontend/testing/memory_sink.h"
#include "server/frontend/testing/tiny_served_model.h"

namespace mnemo::frontend::testing {

inline v1::GenerateRequest Prompt(const std::string& text = "hi") {
  v1::GenerateRequest request;
  request.set_prompt(text);
  request.mutable_sampling()->set_max_tokens(100);
  return request;
}

struct RequestWorld {
  explicit RequestWorld(const AdmissionLimits& limits = {}) : admission(limits, nullptr) {
    static const auto* const kModel = LoadTiny().release();
    context = {.model = kModel,
               .attention = &attention,
               .dispatcher = &dispatcher,
               .metrics = &metrics,
               .admission = &admission,
               .streams = &streams,
               .text_pool = &text_pool,
               .chat_pool = &chat_pool,
               .tunables = &tunables,
               .reserve_tokens = 7,
               .max_message_bytes = 1 << 20};
  }
  // Begins a request on the caller's thread.
  void Begin(const std::shared_ptr<MemorySink>& sink, const v1::GenerateRequest& request = Prompt(),
             std::optional<std::chrono::nanoseconds> time_left = std::nullopt) {
    const v1::GenerateRequest& kept = requests.emplace_back(request);
    sink->Begin(std::make_shared<RequestCore>(&context, sink, &kept, Drawn{17, "drawn"}, time_left));
  }
  std::shared_ptr<MemorySink> Begin(const v1::GenerateRequest& request = Prompt()) {
    auto sink = std::make_shared<MemorySink>();
    Begin(sink, request);
    return sink;
  }

  std::deque<v1::GenerateRequest> requests;
  telemetry::Metrics metrics;
  AttentionServing attention;
  Tunables tunables;
  Admission admission;
  Streams streams;
  FakeDispatcher dispatcher;
  TextPool text_pool;
  TextPool chat_pool{TextPool::kMaxQueuedChats};
  ServiceContext context;
};

}  // namespace mnemo::frontend::testing
