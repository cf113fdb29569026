#include "client/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

namespace mnemo::bench {

std::optional<double> RequestRecord::TimeToFirstToken() const {
  if (first_token < 0) return std::nullopt;
  return first_token - due;
}

std::optional<double> RequestRecord::TimePerOutputToken() const {
  if (output_tokens < 2) return std::nullopt;
  return (last_token - first_token) / (output_tokens - 1);
}

double Percentile(std::span<const double> sorted, double p) {
  const double rank = p / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], rank - static_cast<double>(below));
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  summary.count = values.size();
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  summary.min = values.front();
  summary.p50 = Percentile(values, 50);
  summary.p90 = Percentile(values, 90);
  summary.p99 = Percentile(values, 99);
  summary.max = values.back();
  return summary;
}

namespace {

absl::StatusOr<double> ParseSloTime(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  const std::string unit(end);
  const double scale = unit == "ms" ? 1e-3 : unit == "us" ? 1e-6 : unit == "s" || unit.empty() ? 1.0 : 0.0;
  if (end == copy.c_str() || scale == 0 || !std::isfinite(number) || number <= 0) {
    return InvalidArgument("slo: '{}' is no time; wanted a number above 0 with us, ms or s, as in 500ms",
                           copy);
  }
  return number * scale;
}

}  // namespace

absl::StatusOr<Slo> Slo::Parse(std::string_view text) {
  Slo slo;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    std::optional<double>* const field = key == "ttft"   ? &slo.ttft
                                         : key == "tpot" ? &slo.tpot
                                         : key == "itl"  ? &slo.itl
                                         : key == "e2e"  ? &slo.e2e
                                                         : nullptr;
    if (field == nullptr || equals == std::string_view::npos) {
      return InvalidArgument("slo: '{}'; wanted KEY=TIME with KEY one of ttft, tpot, itl, e2e",
                             std::string(item));
    }
    MNEMO_ASSIGN_OR_RETURN(*field, ParseSloTime(item.substr(equals + 1)));
  }
  return slo;
}

bool Slo::Met(const RequestRecord& record) const {
  if (!record.ok()) return false;
  const auto within = [](std::optional<double> value, std::optional<double> bound) {
    return !bound || !value || *value <= *bound;
  };
  std::optional<double> longest_gap;
  if (!record.gaps.empty()) longest_gap = *std::max_element(record.gaps.begin(), record.gaps.end());
  return within(record.TimeToFirstToken(), ttft) && within(record.TimePerOutputToken(), tpot) &&
         within(longest_gap, itl) && within(record.EndToEnd(), e2e);
}

Report MakeReport(const std::vector<RequestRecord>& records, const Slo& slo) {
  Report report;
  std::vector<double> ttft, tpot, itl, e2e, queue, server_first, lag;
  double begin = 0;
  double end = 0;
  int64_t met = 0;
  for (const RequestRecord& record : records) {
    begin = report.total == 0 ? record.due : std::min(begin, record.due);
    end = std::max(end, record.end);
    ++report.total;
    lag.push_back(record.sent - record.due);
    if (!record.ok()) {
      ++report.errors[absl::StatusCodeToString(record.status.code())];
      continue;
    }
    ++report.succeeded;
    report.prompt_tokens += record.prompt_tokens;
    report.cached_prompt_tokens += record.cached_prompt_tokens;
    report.output_tokens += record.output_tokens;
    if (const auto value = record.TimeToFirstToken()) ttft.push_back(*value);
    if (const auto value = record.TimePerOutputToken()) tpot.push_back(*value);
    itl.insert(itl.end(), record.gaps.begin(), record.gaps.end());
    e2e.push_back(record.EndToEnd());
    queue.push_back(record.server_queue);
    if (record.output_tokens > 0) server_first.push_back(record.server_first_token);
    met += slo.Met(record) ? 1 : 0;
  }
  report.span = end - begin;
  report.ttft = Summarize(std::move(ttft));
  report.tpot = Summarize(std::move(tpot));
  report.itl = Summarize(std::move(itl));
  report.e2e = Summarize(std::move(e2e));
  report.server_queue = Summarize(std::move(queue));
  report.server_first_token = Summarize(std::move(server_first));
  report.lag = Summarize(std::move(lag));
  if (slo.any()) report.slo_met = met;
  return report;
}

}  // namespace mnemo::bench
