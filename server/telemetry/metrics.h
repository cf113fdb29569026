// Prometheus metrics of the front end, under the field's names with the prefix mnemo_.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::telemetry {

struct WorkerGauges {
  std::string worker;  // label
  bool ready = false;
  int running = 0;
  int waiting = 0;
  int64_t kv_pages_used = 0;
  int64_t kv_pages_total = 0;
  int64_t kv_pages_cached = 0;
  uint64_t preemptions = 0;  // counters of the worker's current life; the metric adds up over restarts
  uint64_t prefix_query_tokens = 0;
  uint64_t prefix_hit_tokens = 0;
  uint64_t restarts = 0;
};

struct RequestTimes {
  std::chrono::nanoseconds queue{0};
  std::chrono::nanoseconds prefill{0};
  std::chrono::nanoseconds decode{0};
  std::chrono::nanoseconds time_to_first_token{0};
  std::chrono::nanoseconds total{0};
  int prompt_tokens = 0;
  int completion_tokens = 0;
  bool has_first_token = false;
};

// Thread-safe; every call is wait-free or takes a short lock of its own.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // Serves /metrics on "host:port" (port 0: any); returns the port. UNAVAILABLE when the address is taken.
  absl::StatusOr<int> Listen(const std::string& address);
  // The exposition text, as a scrape would see it.
  std::string Expose() const;

  void ObserveInterTokenLatency(std::chrono::nanoseconds gap);
  void ObserveTimeToFirstToken(std::chrono::nanoseconds ttft);
  void AddPromptTokens(int count);
  void AddGenerationTokens(int count);
  // finish_reason: eos | stop | length. The times go into the histograms.
  void RequestSucceeded(const std::string& finish_reason, const RequestTimes& times);
  // A request that ended with a status other than OK after admission; code as in "CANCELLED".
  void RequestFailed(const std::string& code);
  // reason: queue_full | tokens_in_flight | invalid | draining | unimplemented | not_found
  void RequestRejected(const std::string& reason);
  void RequestReplayed(const std::string& worker);
  // Front end's own counts.
  void SetRequests(int running, int waiting, int64_t tokens_in_flight);
  // Called before each exposition and also by the caller at will.
  void SetWorkers(const std::vector<WorkerGauges>& workers);
  void SetBuildInfo(const std::string& version, const std::string& numerics_id, const std::string& model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::telemetry
