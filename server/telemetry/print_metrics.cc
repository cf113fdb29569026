// Writes docs/METRICS.md, from the table of metrics, to standard output.
#include <cstdio>
#include <string>

#include "server/telemetry/metric_table.h"

namespace {

using mnemo::telemetry::MetricInfo;
using mnemo::telemetry::MetricPresence;
using mnemo::telemetry::MetricType;

constexpr char kIntroduction[] =
    R"(<!-- Made by build/release/tools/print_metrics; a test checks that it is current. -->
# Metrics

mnemod exposes its metrics for Prometheus on `server.metrics_listen`, mnemo-memory on `--metrics-listen`. The memory services and workers that
mnemod starts need no address of their own: mnemod exposes what they report, with the figures of their cards. A memory service in
`memory.addresses` needs one: mnemod knows of it what its workers tell, and only its own endpoint has its memory, its operations and its card.
Names and labels keep their meaning; new ones may come.

The end of a name is the unit: `_seconds`, `_bytes`, `_joules`, `_watts`, `_ratio`. A name on `_total` is a counter, which begins at 0 when the
process starts. A histogram has the samples `_bucket` with the label `le`, `_sum` and `_count`. No label holds an id or a text of a request.

"From" tells when a metric appears first. One that is absent is not 0: a node without a meter has no figure of energy.
)";

const char* Name(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "";
}

const char* Name(MetricPresence presence) {
  switch (presence) {
    case MetricPresence::kStart:
      return "the start";
    case MetricPresence::kWorker:
      return "the first ready worker";
    case MetricPresence::kService:
      return "the first memory service";
    case MetricPresence::kOwnService:
      return "the first memory service that mnemod starts";
    case MetricPresence::kSparse:
      return "the first request with sparse attention";
    case MetricPresence::kMeter:
      return "the first meter or model of energy";
    case MetricPresence::kMeasured:
      return "the first measured interval";
    case MetricPresence::kRequestEnergy:
      return "the first request with energy";
    case MetricPresence::kAttached:
      return "the first attached worker";
    case MetricPresence::kOperation:
      return "the first operation";
    case MetricPresence::kCounters:
      return "a device that counts its work";
  }
  return "";
}

std::string Labels(const MetricInfo& metric) {
  std::string text;
  for (const char c : metric.labels) text += c == ' ' ? std::string("`, `") : std::string(1, c);
  return text.empty() ? "" : "`" + text + "`";
}

void Print(const char* title, std::span<const MetricInfo> metrics) {
  std::printf("\n## %s\n\n| Metric | Type | Labels | From | Meaning |\n|---|---|---|---|---|\n", title);
  for (const MetricInfo& metric : metrics) {
    std::printf("| `%s` | %s | %s | %s | %s |\n", std::string(metric.name).c_str(), Name(metric.type),
                Labels(metric).c_str(), Name(metric.presence), std::string(metric.help).c_str());
  }
}

}  // namespace

int main() {
  std::fputs(kIntroduction, stdout);
  Print("mnemod", mnemo::telemetry::DaemonMetrics());
  Print("mnemo-memory", mnemo::telemetry::MemoryServiceMetrics());
  return std::fflush(stdout) == 0 ? 0 : 1;
}
