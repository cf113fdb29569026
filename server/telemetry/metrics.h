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
  std::string worker;  // label
  bool ready = false;
  int running = 0;
  int waiting = 0;
  int64_t kv_pages_used = 0;
  int64_t kv_pages_total = 0;
  int64_t kv_pages_cached = 0;
  uint64_t preemptions = 0;  // these count over all lives of the worker and never fall
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

// Figures that another process counts, shown as they are: a counter begins again when that process does.
struct ForeignHistogram {
  std::vector<double> bounds;     // ascending upper bounds
  std::vector<uint64_t> buckets;  // not cumulative; one more than bounds
  double sum = 0;
};
struct ForeignSample {
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;                 // of a counter or gauge
  ForeignHistogram histogram = {};  // of a histogram
};
struct ForeignFamily {
  enum class Kind { kCounter, kGauge, kHistogram };
  std::string name;  // without mnemo_
  std::string help;
  Kind kind = Kind::kGauge;
  std::vector<ForeignSample> samples;
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
  // `hook` is called before each exposition, on the thread that asks for it, never two at once; it is the
  // place to call SetWorkers and SetRequests. Returns once the hook before it runs no more; nullptr removes.
  void BeforeExposition(std::function<void()> hook);

  void ObserveInterTokenLatency(std::chrono::nanoseconds gap);
  void ObserveTimeToFirstToken(std::chrono::nanoseconds ttft);
  void AddPromptTokens(int count);
  void AddGenerationTokens(int count);
  // finish_reason: eos | stop | length. The times go into the histograms, except time_to_first_token, which
  // ObserveTimeToFirstToken tells when it happens.
  void RequestSucceeded(const std::string& finish_reason, const RequestTimes& times);
  // A request that ended with a status other than OK after admission; code as in "CANCELLED".
  void RequestFailed(const std::string& code);
  // reason: queue_full | tokens_in_flight | invalid | draining | unimplemented | not_found
  void RequestRejected(const std::string& reason);
  void RequestReplayed(const std::string& worker);
  // Front end's own counts.
  void SetRequests(int running, int waiting, int64_t tokens_in_flight);
  // From BeforeExposition's hook, and else at will. A worker that is not in the list any more keeps its
  // counters.
  void SetWorkers(const std::vector<WorkerGauges>& workers);
  // From BeforeExposition's hook. Replaces those of the call before; a family without samples is not shown.
  void SetForeign(std::vector<ForeignFamily> families);
  void SetBuildInfo(const std::string& version, const std::string& numerics_id, const std::string& model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::telemetry
