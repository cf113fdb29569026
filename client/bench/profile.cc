#include "client/bench/profile.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace mnemo::bench {
namespace {

using Json = nlohmann::ordered_json;

double ToSeconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) * 1e-9;
}

// Sums of the four steps over a batch's requests.
struct StepSums {
  std::array<double, kMemorySteps> seconds{}, bytes{};
  std::array<std::set<std::string>, kMemorySteps> devices;
  double round_trips = 0;
  bool any = false;
};

StepSums Sum(std::span<const ProfileSample> samples) {
  StepSums sums;
  for (const ProfileSample& sample : samples) {
    for (const v1::MemoryStep& step : sample.final.memory_steps()) {
      const int index = static_cast<int>(step.step()) - static_cast<int>(v1::MemoryStep::STEP_PREPARE);
      if (index < 0 || index >= static_cast<int>(kMemorySteps)) continue;  // a step of a newer daemon
      const auto i = static_cast<size_t>(index);
      sums.any = true;
      sums.seconds[i] += ToSeconds(step.time());
      sums.bytes[i] += static_cast<double>(step.bytes_moved());
      sums.devices[i].insert(step.device());
      sums.round_trips += static_cast<double>(step.round_trips());
    }
  }
  return sums;
}

std::string Join(const std::set<std::string>& devices) {
  std::string text;
  for (const std::string& device : devices) text += (text.empty() ? "" : "+") + device;
  return text;
}

Json CaseJson(const ProfileCase& of) {
  return {{"method", of.method},
          {"placement", of.placement.empty() ? Json(nullptr) : Json(of.placement)},
          {"context_tokens", of.context_tokens},
          {"batch", of.batch}};
}

Json RowJson(const ProfileRow& row) {
  Json json = CaseJson(row.of);
  json["decode_seconds_per_token"] = row.decode_seconds_per_token;
  json["wall_seconds"] = row.wall_seconds;
  json["cached_prompt_tokens"] = row.cached_prompt_tokens;
  json["memory_share"] = row.steps ? Json(row.memory_share) : Json(nullptr);
  json["bytes_moved_per_token"] = row.steps ? Json(row.bytes_per_token) : Json(nullptr);
  json["round_trips_per_token"] = row.steps ? Json(row.round_trips_per_token) : Json(nullptr);
  json["prompt_prepare_seconds"] = row.steps ? Json(row.prompt_prepare_seconds) : Json(nullptr);
  json["overlapped"] = row.overlapped;
  json["steps"] = nullptr;
  if (!row.steps) return json;
  json["steps"] = Json::object();
  for (size_t i = 0; i < kMemorySteps; ++i) {
    const StepFigure& step = (*row.steps)[i];
    json["steps"][kMemoryStepNames[i]] = {
        {"share", step.share},
        {"seconds", step.seconds},
        {"device", step.device.empty() ? Json(nullptr) : Json(step.device)}};
  }
  return json;
}

}  // namespace

std::string CaseName(const ProfileCase& of) {
  return fmt::format("{}{}, context {}, batch {}", of.method, of.placement.empty() ? "" : " " + of.placement,
                     of.context_tokens, of.batch);
}

absl::StatusOr<ProfileRow> MakeProfileRow(const ProfileCase& of, std::span<const ProfileSample> samples) {
  ProfileRow row;
  row.of = of;
  double first = 0, last = 0;
  int64_t decoded_tokens = 0, prompt_tokens = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const v1::Final& final = samples[i].final;
    const int tokens = final.usage().completion_tokens();
    const double decode = ToSeconds(final.timing().decode());
    if (tokens < 2) return Internal("the daemon generated {} tokens; at least 2 were asked for", tokens);
    if (decode <= 0) return Internal("the daemon reported no decode time for {} tokens", tokens);
    const double begin = samples[i].sent + ToSeconds(final.timing().time_to_first_token());
    first = i == 0 ? begin : std::min(first, begin);
    last = i == 0 ? begin + decode : std::max(last, begin + decode);
    decoded_tokens += tokens - 1;
    prompt_tokens += final.usage().prompt_tokens();
    row.decode_seconds_per_token += decode / (tokens - 1) / static_cast<double>(samples.size());
    row.cached_prompt_tokens += final.usage().cached_prompt_tokens();
  }
  if (samples.empty()) return Internal("a batch without requests");
  row.wall_seconds = last - first;

  StepSums sums = Sum(samples);
  if (!sums.any) return row;
  const double of_decode =
      static_cast<double>(decoded_tokens) / static_cast<double>(decoded_tokens + prompt_tokens);
  row.prompt_prepare_seconds = sums.seconds[0] * (1 - of_decode);
  sums.seconds[0] *= of_decode;
  sums.bytes[0] *= of_decode;
  double seconds = 0, bytes = 0;
  for (size_t i = 0; i < kMemorySteps; ++i) {
    seconds += sums.seconds[i];
    bytes += sums.bytes[i];
  }
  row.overlapped = seconds > row.wall_seconds;
  const double whole = std::max(seconds, row.wall_seconds);
  row.memory_share = seconds / whole;
  row.bytes_per_token = bytes / static_cast<double>(decoded_tokens);
  row.round_trips_per_token = sums.round_trips / static_cast<double>(decoded_tokens);
  row.steps.emplace();
  for (size_t i = 0; i < kMemorySteps; ++i) {
    (*row.steps)[i] = {sums.seconds[i], sums.seconds[i] / whole, Join(sums.devices[i])};
  }
  return row;
}

std::string ProfileJson(const Profile& profile) {
  Json rows = Json::array();
  for (const ProfileRow& row : profile.rows) rows.push_back(RowJson(row));
  Json skipped = Json::array();
  for (const SkippedCase& each : profile.skipped) {
    Json json = CaseJson(each.of);
    json["reason"] = each.reason;
    skipped.push_back(std::move(json));
  }
  Json options = Json::object();
  for (const auto& [name, values] : profile.options) {
    options[name] = values.size() == 1 ? Json(values[0]) : Json(values);
  }
  const Json json = {{"run",
                      {{"address", profile.address},
                       {"model", profile.model},
                       {"seed", profile.seed},
                       {"token_budget", profile.token_budget},
                       {"output_tokens", profile.output_tokens},
                       {"options", std::move(options)}}},
                     {"rows", std::move(rows)},
                     {"skipped", std::move(skipped)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace mnemo::bench
