// A report as text for people and as JSON.
#pragma once

#include <string>

#include "client/bench/statistics.h"

namespace mnemo::bench {

// Settings of the run, repeated in the output so that a result can be understood alone.
struct RunDescription {
  std::string address;
  std::string model;
  std::string load;  // "closed loop, 8 in flight", "open loop, 4.00 requests/s (Poisson)", "trace FILE x 1.0"
  std::string workload;  // "128 prompt tokens, 64 output tokens"
  uint64_t seed = 0;
  std::string slo;  // as given; empty = none
  int64_t warmup = 0;
  int64_t clipped = 0;  // shortened trace entries
  // Given options of the requests, with their values.
  std::vector<std::pair<std::string, std::vector<std::string>>> options;
};

std::string ReportText(const RunDescription& run, const Report& report);
std::string ReportJson(const RunDescription& run, const Report& report);
// One JSON object, one line, without a newline.
std::string RecordJson(const RequestRecord& record);

}  // namespace mnemo::bench
