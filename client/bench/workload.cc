#include "client/bench/workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "client/bench/messages.h"

namespace mnemo::bench {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
constexpr int64_t kMaxTokens = int64_t{1} << 30;

enum Stream : uint64_t { kOwnStream = 1, kSharedStream = 2, kTraceStream = 3 };

absl::StatusOr<int64_t> TokenCount(const nlohmann::json& line, const char* key, int64_t low) {
  const auto found = line.find(key);
  if (found == line.end()) return InvalidArgument("{} is missing", key);
  if (!found->is_number_integer()) return InvalidArgument("{} is no integer", key);
  const auto value = found->get<int64_t>();
  if (value < low || value > kMaxTokens)
    return InvalidArgument("{} = {} is outside [{}, {}]", key, value, low, kMaxTokens);
  return value;
}

absl::StatusOr<TraceEntry> ParseTraceLine(std::string_view text) {
  const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
  if (!line.is_object()) return InvalidArgument("not a JSON object");
  TraceEntry entry;
  const auto timestamp = line.find("timestamp");
  if (timestamp == line.end() || !timestamp->is_number())
    return InvalidArgument("timestamp is missing or no number");
  entry.arrival = timestamp->get<double>() / 1000.0;
  if (!std::isfinite(entry.arrival) || entry.arrival < 0)
    return InvalidArgument("timestamp is negative or not finite");
  MNEMO_ASSIGN_OR_RETURN(entry.input_tokens, TokenCount(line, "input_length", 1));
  MNEMO_ASSIGN_OR_RETURN(entry.output_tokens, TokenCount(line, "output_length", 0));
  if (const auto ids = line.find("hash_ids"); ids != line.end()) {
    if (!ids->is_array()) return InvalidArgument("hash_ids is no list");
    for (const nlohmann::json& id : *ids) {
      if (!id.is_number_integer()) return InvalidArgument("hash_ids holds something other than integers");
      entry.hash_ids.push_back(id.get<uint64_t>());
    }
  }
  return entry;
}

// Calls `each(line, number)` for every line that is not blank.
template <typename Each>
absl::Status ForEachLine(std::string_view text, const std::string& name, Each each) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text = newline == std::string_view::npos ? std::string_view() : text.substr(newline + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    if (const absl::Status status = each(line); !status.ok())
      return Annotate(status, fmt::format("{}:{}", name, number));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

uint64_t Random::Next() {
  state_ += kGolden;
  return Mix(state_);
}

double Random::Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

int64_t Random::InRange(int64_t low, int64_t high) {
  // The bias of the remainder is below 2^-30 for the ranges used here.
  return low + static_cast<int64_t>(Next() % static_cast<uint64_t>(high - low + 1));
}

absl::StatusOr<LengthRange> LengthRange::Parse(std::string_view text) {
  LengthRange range;
  const char* const last = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), last, range.low);
  range.high = range.low;
  bool valid = error == std::errc();
  if (valid && at != last && *at == ':') {
    const auto [end, high_error] = std::from_chars(at + 1, last, range.high);
    valid = high_error == std::errc();
    at = end;
  }
  if (!valid || at != last || range.low < 0 || range.low > range.high || range.high > kMaxTokens) {
    return InvalidArgument("'{}' is no length; wanted N or LOW:HIGH with 0 <= LOW <= HIGH",
                           std::string(text));
  }
  return range;
}

absl::StatusOr<std::vector<TraceEntry>> ParseTrace(std::string_view text, const std::string& name) {
  std::vector<TraceEntry> entries;
  MNEMO_RETURN_IF_ERROR(ForEachLine(text, name, [&](std::string_view line) -> absl::Status {
    MNEMO_ASSIGN_OR_RETURN(TraceEntry entry, ParseTraceLine(line));
    entries.push_back(std::move(entry));
    return absl::OkStatus();
  }));
  if (entries.empty()) return InvalidArgument("{}: holds no requests", name);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TraceEntry& a, const TraceEntry& b) { return a.arrival < b.arrival; });
  const double first = entries.front().arrival;
  for (TraceEntry& entry : entries) entry.arrival -= first;
  return entries;
}

absl::StatusOr<std::vector<TextPrompt>> ParsePrompts(std::string_view text, const std::string& name) {
  std::vector<TextPrompt> prompts;
  MNEMO_RETURN_IF_ERROR(ForEachLine(text, name, [&](std::string_view line) -> absl::Status {
    TextPrompt prompt;
    prompt.text = std::string(line);
    if (line.front() == '{') {
      const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
      if (!object.is_object()) return InvalidArgument("begins with '{{' but is no JSON object");
      if (object.contains("messages")) {
        if (object.contains("prompt")) return InvalidArgument("prompt and messages are there together");
        prompt.chat.emplace();
        if (absl::Status read = ParseMessages(line, &*prompt.chat); !read.ok()) return read;
      } else {
        const auto found = object.find("prompt");
        if (found == object.end() || !found->is_string())
          return InvalidArgument("prompt is missing or no string");
        prompt.text = found->get<std::string>();
      }
      if (object.contains("max_tokens")) {
        MNEMO_ASSIGN_OR_RETURN(prompt.max_tokens, TokenCount(object, "max_tokens", 0));
      }
    }
    prompts.push_back(std::move(prompt));
    return absl::OkStatus();
  }));
  if (prompts.empty()) return InvalidArgument("{}: holds no prompts", name);
  return prompts;
}

double PoissonArrivals::Next() {
  time_ -= std::log1p(-random_.Uniform()) / rate_;
  return time_;
}

void PromptMaker::Append(uint64_t stream, uint64_t key, int64_t count, std::vector<int32_t>* ids) const {
  bench::Random random(Mix(Mix(seed_ * kGolden + stream) + key * kGolden));
  for (int64_t i = 0; i < count; ++i) ids->push_back(vocabulary_[random.Next() % vocabulary_.size()]);
}

std::vector<int32_t> PromptMaker::Random(int64_t index, int64_t tokens, int64_t shared_tokens) const {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(tokens));
  Append(kSharedStream, 0, shared_tokens, &ids);
  Append(kOwnStream, static_cast<uint64_t>(index), tokens - shared_tokens, &ids);
  return ids;
}

std::vector<int32_t> PromptMaker::FromTrace(int64_t index, const TraceEntry& entry) const {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(entry.input_tokens));
  int64_t left = entry.input_tokens;
  for (const uint64_t hash : entry.hash_ids) {
    if (left <= 0) break;
    const int64_t count = std::min(left, kTraceBlockTokens);
    Append(kTraceStream, hash, count, &ids);
    left -= count;
  }
  Append(kOwnStream, static_cast<uint64_t>(index), left, &ids);
  return ids;
}

}  // namespace mnemo::bench
