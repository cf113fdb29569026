// Prometheus metrics of the front end, under the field's names with the prefix mnemo_.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::telemetry {

struct WorkerGauges {
  // Value of the label.
  std::string worker;
  bool ready = false;
  int running = 0;
  int waiting = 0;
  int64_t kv_pages_used = 0;
  int64_t kv_pages_total = 0;
  int64_t kv_pages_cached = 0;
  // This and the following counters sum over all lives of the worker and never fall.
  uint64_t preemptions = 0;
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

// Values that another process counts, exposed unchanged: a counter restarts when that process does.
struct ForeignHistogram {
  // Ascending upper bounds.
  std::vector<double> bounds;
  // Not cumulative; one more than bounds.
  std::vector<uint64_t> buckets;
  double sum = 0;
};
struct ForeignSample {
  std::vector<std::pair<std::string, std::string>> labels;
  // For a counter or gauge.
  double value = 0;
  // For a histogram.
  ForeignHistogram histogram = {};
};
struct ForeignFamily {
  // In the table of metrics (metric_table.h), which gives type and help.
  std::string name;
  std::vector<ForeignSample> samples = {};
};

// Thread-safe; every call is wait-free or holds a short lock of its own.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // Serves /metrics on "host:port" (port 0: any); returns the port. UNAVAILABLE when the address is taken.
  absl::StatusOr<int> Listen(const std::string& address);
  // Returns the exposition text, as a scrape sees it.
  std::string Expose() const;
  // Sets `hook`, which runs before each exposition, on the thread that requests it, never twice at once. It
  // is the place to call SetWorkers and SetRequests. Returns once the previous hook has ended; nullptr
  // removes the hook.
  void BeforeExposition(std::function<void()> hook);

  void ObserveInterTokenLatency(std::chrono::nanoseconds gap);
  void ObserveTimeToFirstToken(std::chrono::nanoseconds ttft);
  void AddPromptTokens(int count);
  void AddGenerationTokens(int count);
  // finish_reason: eos | stop | length. The times go into the histograms, except time_to_first_token, which
  // ObserveTimeToFirstToken records when it occurs.
  void RequestSucceeded(const std::string& finish_reason, const RequestTimes& times);
  // Counts a request that ended with a status other than OK after admission; code as in "CANCELLED".
  void RequestFailed(const std::string& code);
  // reason: queue_full | tokens_in_flight | invalid | draining | unimplemented | not_found
  void RequestRejected(const std::string& reason);
  // Counts a replay under the worker that died or gave the request back.
  void RequestReplayed(const std::string& worker);
  // Sets the front end's own counts.
  void SetRequests(int running, int waiting, int64_t tokens_in_flight);
  // Call from BeforeExposition's hook or at any other time. A worker that is missing from the list keeps its
  // counters.
  void SetWorkers(const std::vector<WorkerGauges>& workers);
  // Call from BeforeExposition's hook. Replaces the families of the previous call; a family without samples
  // is not exposed.
  void SetForeign(std::vector<ForeignFamily> families);
  void SetBuildInfo(const std::string& version, const std::string& numerics_id, const std::string& model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::telemetry
