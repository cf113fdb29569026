#include "server/telemetry/metric_table.h"

#include <catch2/catch.hpp>
#include <set>
#include <span>
#include <string_view>

namespace mnemo::telemetry {
namespace {

TEST_CASE("each metric has one entry, a name of its type and a sentence", "[metric_table]") {
  for (const std::span<const MetricInfo> table : {DaemonMetrics(), MemoryServiceMetrics()}) {
    std::set<std::string_view> names;
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
      const MetricInfo& found = FindMetric(metric.name);
      CHECK(found.name == metric.name);
      CHECK(found.help == metric.help);
      CHECK(found.labels == metric.labels);
    }
  }
}

TEST_CASE("programs share the metrics of devices, and no others", "[metric_table]") {
  const auto names = [](std::span<const MetricInfo> table) {
    std::set<std::string_view> all;
    for (const MetricInfo& metric : table) all.insert(metric.name);
    return all;
  };
  std::set<std::string_view> shared;
  const std::set<std::string_view> of_service = names(MemoryServiceMetrics());
  for (const std::string_view name : names(DaemonMetrics())) {
    if (of_service.contains(name)) shared.insert(name);
  }
  CHECK(shared == names(DeviceMetrics()));
  CHECK(shared.size() > 10);
}

}  // namespace
}  // namespace mnemo::telemetry
