// The rows of `mnemo profile`: the parts of a decode step's time. Formulas: docs/BENCHMARK.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/v1/generation.pb.h"

namespace mnemo::bench {

inline constexpr size_t kMemorySteps = 4;
inline constexpr std::array<const char*, kMemorySteps> kMemoryStepNames = {"prepare", "relevancy",
                                                                           "retrieval", "apply"};

struct ProfileCase {
  std::string method;     // dense, token_topk ...
  std::string placement;  // inline | memory-service; empty with dense, which has no steps to place
  int64_t context_tokens = 0;
  int batch = 0;
};
// "token_topk inline, context 1024, batch 4".
std::string CaseName(const ProfileCase& of);

// One request of a batch, as it ended.
struct ProfileSample {
  double sent = 0;  // seconds on a clock that the batch's requests share
  v1::Final final;
};

struct StepFigure {
  double seconds = 0;  // while decoding, summed over the batch's requests
  double share = 0;    // of the batch's decoding time
  std::string device;  // several are joined by '+'
};

struct ProfileRow {
  ProfileCase of;
  double decode_seconds_per_token = 0;  // mean over the requests
  double wall_seconds = 0;              // from the batch's first token to its last
  int64_t cached_prompt_tokens = 0;     // summed over the requests
  // Absent when the daemon reported no step, as for dense attention; the members below are then 0.
  std::optional<std::array<StepFigure, kMemorySteps>> steps;
  double memory_share = 0;            // all four steps, of the batch's decoding time
  double prompt_prepare_seconds = 0;  // the prompts' part of `prepare`, in no share
  double bytes_per_token = 0;         // moved by all four steps, a generated token
  double round_trips_per_token = 0;   // to the memory service, a generated token
  // True when steps of several requests ran at the same time and took more than the wall time together. The
  // shares are then of the steps' sum.
  bool overlapped = false;
};

// The prompt's keys are indexed too, page by page. Each token has the same part of the time of `prepare`;
// only decoded tokens count. Fails when a request has fewer than two tokens or no decode time.
absl::StatusOr<ProfileRow> MakeProfileRow(const ProfileCase& of, std::span<const ProfileSample> samples);

struct SkippedCase {
  ProfileCase of;
  std::string reason;
};

struct Profile {
  std::string address;
  std::string model;
  uint64_t seed = 0;
  int token_budget = 0;
  int output_tokens = 0;  // a request
  // Other given options of the requests, with their values.
  std::vector<std::pair<std::string, std::vector<std::string>>> options;
  std::vector<ProfileRow> rows;
  std::vector<SkippedCase> skipped;
};

// One object with "rows" and "skipped"; times in seconds. No newline at the end.
std::string ProfileJson(const Profile& profile);
// A bar for each row, stacked of the four steps and the rest, in milliseconds a token. An SVG document.
std::string ProfileSvg(const Profile& profile);

}  // namespace mnemo::bench
