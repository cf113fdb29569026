#include "server/telemetry/metric_table.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>

namespace mnemo::telemetry {
namespace {

TEST_CASE("each metric has one entry, a name of its type and a sentence", "[metric_table]") {
  std::set<std::string_view> names;
  for (const std::span<const MetricInfo> table : {DaemonMetrics(), MemoryServiceMetrics()}) {
    REQUIRE_FALSE(table.empty());
    for (const MetricInfo& metric : table) {
      INFO(metric.name);
      CHECK(names.insert(metric.name).second);
      CHECK(metric.name.starts_with("mnemo_"));
      CHECK(metric.name.ends_with("_total") == (metric.type == MetricType::kCounter));
      // These are the endings of a histogram's samples.
      for (const char* ending : {"_bucket", "_sum", "_count"}) CHECK_FALSE(metric.name.ends_with(ending));
      CHECK(metric.help.ends_with('.'));
      CHECK_FALSE(metric.labels.starts_with(' '));
      CHECK_FALSE(metric.labels.ends_with(' '));
      CHECK(metric.labels.find("  ") == std::string_view::npos);
      CHECK(&FindMetric(metric.name) == &metric);
    }
  }
}

}  // namespace
}  // namespace mnemo::telemetry
