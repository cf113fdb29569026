// Records of a load run and the figures made from them. Formulas: docs/BENCHMARK.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"

namespace mnemo::bench {

// One request as the client saw it. Times are seconds since the begin of the measurement, read when a message
// has been received.
struct RequestRecord {
  int64_t index = 0;
  // The planned time of sending: the arrival time (open loop) or the time a slot came free (closed loop).
  double due = 0;
  double sent = 0;
  double first_token = -1;  // -1 = no token came
  double last_token = -1;
  double end = 0;  // end of the stream
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;
  int output_tokens = 0;
  std::vector<float> gaps;  // seconds between successive messages that carry tokens
  absl::Status status;
  double server_queue = 0;  // as the server reports
  double server_first_token = 0;

  bool ok() const { return status.ok(); }
  std::optional<double> TimeToFirstToken() const;    // from due
  std::optional<double> TimePerOutputToken() const;  // absent below two tokens
  double EndToEnd() const { return end - due; }
};

// p in [0, 100]; linear interpolation between the two nearest ranks (rank p/100 x (n-1), as numpy does by
// default). `sorted` ascending and not empty.
double Percentile(std::span<const double> sorted, double p);

struct Summary {
  size_t count = 0;  // 0: the other members have no meaning
  double mean = 0, min = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
Summary Summarize(std::vector<double> values);

// Service level objectives, in seconds; absent = no objective.
struct Slo {
  std::optional<double> ttft, tpot, itl, e2e;
  bool any() const { return ttft || tpot || itl || e2e; }
  // "ttft=500ms,tpot=50ms": keys ttft, tpot, itl (a request's longest gap), e2e.
  static absl::StatusOr<Slo> Parse(std::string_view text);
  bool Met(const RequestRecord& record) const;
};

struct Report {
  int64_t total = 0;
  int64_t succeeded = 0;
  std::map<std::string, int64_t> errors;  // status code -> count
  double span = 0;                        // seconds from the first due to the last end
  int64_t prompt_tokens = 0;              // of succeeded requests, as all members below
  int64_t cached_prompt_tokens = 0;
  int64_t output_tokens = 0;
  Summary ttft, tpot, itl, e2e;
  Summary server_queue, server_first_token;
  Summary lag;  // sent - due, of all requests: how far the load generator itself fell behind
  std::optional<int64_t> slo_met;  // requests that succeeded within every objective

  double PerSecond(double amount) const { return span > 0 ? amount / span : 0; }
};
Report MakeReport(const std::vector<RequestRecord>& records, const Slo& slo);

}  // namespace mnemo::bench
