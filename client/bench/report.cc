#include "client/bench/report.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

namespace mnemo::bench {
namespace {

using Json = nlohmann::ordered_json;

Json SummaryJson(const Summary& summary) {
  if (summary.count == 0) return {{"count", 0}};
  return {{"count", summary.count}, {"mean", summary.mean}, {"min", summary.min}, {"p50", summary.p50},
          {"p90", summary.p90},     {"p99", summary.p99},   {"max", summary.max}};
}

std::string SummaryLine(const char* name, const Summary& summary) {
  if (summary.count == 0) return fmt::format("{:<22}{:>10}\n", name, "-");
  return fmt::format("{:<22}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", name, summary.mean * 1e3,
                     summary.p50 * 1e3, summary.p90 * 1e3, summary.p99 * 1e3, summary.max * 1e3);
}

// An option given once has its value, a repeated one a list.
Json OptionsJson(const std::vector<std::pair<std::string, std::vector<std::string>>>& options) {
  Json json = Json::object();
  for (const auto& [name, values] : options) json[name] = values.size() == 1 ? Json(values[0]) : Json(values);
  return json;
}

}  // namespace

std::string ReportText(const RunDescription& run, const Report& report) {
  std::string text =
      fmt::format("{} at {}: {}; {}; seed {}\n", run.model, run.address, run.load, run.workload, run.seed);
  if (!run.options.empty()) {
    text += "requests with";
    for (const auto& [name, values] : run.options) {
      text += fmt::format(" --{} {}", name, fmt::join(values, " "));
    }
    text += "\n";
  }
  if (run.clipped > 0) text += fmt::format("{} requests of the trace were shortened\n", run.clipped);
  text += fmt::format("requests   {} in {:.2f} s: {} succeeded, {} failed\n", report.total, report.span,
                      report.succeeded, report.total - report.succeeded);
  for (const auto& [code, count] : report.errors) text += fmt::format("           {} {}\n", count, code);
  text += fmt::format("throughput {:.2f} requests/s, {:.1f} output tokens/s, {:.1f} tokens/s with prompts\n",
                      report.PerSecond(static_cast<double>(report.succeeded)),
                      report.PerSecond(static_cast<double>(report.output_tokens)),
                      report.PerSecond(static_cast<double>(report.output_tokens + report.prompt_tokens)));
  text += fmt::format("tokens     {} prompt ({} from the prefix cache), {} output\n", report.prompt_tokens,
                      report.cached_prompt_tokens, report.output_tokens);
  if (report.slo_met.has_value()) {
    text += fmt::format(
        "goodput    {:.2f} requests/s within {}; {} of {} requests ({:.1f} %)\n",
        report.PerSecond(static_cast<double>(*report.slo_met)), run.slo, *report.slo_met, report.total,
        report.total > 0 ? 100.0 * static_cast<double>(*report.slo_met) / static_cast<double>(report.total)
                         : 0.0);
  }
  text += fmt::format("\n{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "p50", "p90", "p99",
                      "max");
  text += SummaryLine("TTFT", report.ttft);
  text += SummaryLine("TPOT", report.tpot);
  text += SummaryLine("ITL", report.itl);
  text += SummaryLine("end to end", report.e2e);
  text += SummaryLine("server: queue", report.server_queue);
  text += SummaryLine("server: first token", report.server_first_token);
  text += SummaryLine("load generator's lag", report.lag);
  return text;
}

std::string ReportJson(const RunDescription& run, const Report& report) {
  Json errors = Json::object();
  for (const auto& [code, count] : report.errors) errors[code] = count;
  Json json = {{"run",
                {{"address", run.address},
                 {"model", run.model},
                 {"load", run.load},
                 {"workload", run.workload},
                 {"seed", run.seed},
                 {"warmup_requests", run.warmup},
                 {"clipped_requests", run.clipped},
                 {"options", OptionsJson(run.options)}}},
               {"duration_seconds", report.span},
               {"requests",
                {{"total", report.total},
                 {"succeeded", report.succeeded},
                 {"failed", report.total - report.succeeded},
                 {"errors", std::move(errors)}}},
               {"tokens",
                {{"prompt", report.prompt_tokens},
                 {"cached_prompt", report.cached_prompt_tokens},
                 {"output", report.output_tokens}}},
               {"throughput",
                {{"requests_per_second", report.PerSecond(static_cast<double>(report.succeeded))},
                 {"output_tokens_per_second", report.PerSecond(static_cast<double>(report.output_tokens))},
                 {"total_tokens_per_second",
                  report.PerSecond(static_cast<double>(report.output_tokens + report.prompt_tokens))}}},
               {"ttft_seconds", SummaryJson(report.ttft)},
               {"tpot_seconds", SummaryJson(report.tpot)},
               {"itl_seconds", SummaryJson(report.itl)},
               {"e2e_seconds", SummaryJson(report.e2e)},
               {"server_queue_seconds", SummaryJson(report.server_queue)},
               {"server_ttft_seconds", SummaryJson(report.server_first_token)},
               {"lag_seconds", SummaryJson(report.lag)}};
  if (report.slo_met.has_value()) {
    const double met = static_cast<double>(*report.slo_met);
    json["goodput"] = {{"slo", run.slo},
                       {"requests_met", *report.slo_met},
                       {"fraction", report.total > 0 ? met / static_cast<double>(report.total) : 0.0},
                       {"requests_per_second", report.PerSecond(met)}};
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string RecordJson(const RequestRecord& record) {
  const auto optional = [](std::optional<double> value) { return value ? Json(*value) : Json(nullptr); };
  const Json json = {{"index", record.index},
                     {"status", absl::StatusCodeToString(record.status.code())},
                     {"message", std::string(record.status.message())},
                     {"due_seconds", record.due},
                     {"sent_seconds", record.sent},
                     {"ttft_seconds", optional(record.TimeToFirstToken())},
                     {"tpot_seconds", optional(record.TimePerOutputToken())},
                     {"e2e_seconds", record.EndToEnd()},
                     {"prompt_tokens", record.prompt_tokens},
                     {"cached_prompt_tokens", record.cached_prompt_tokens},
                     {"output_tokens", record.output_tokens},
                     {"itl_seconds", record.gaps}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace mnemo::bench
