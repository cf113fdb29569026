// Costs of memory steps: for one request, and for all requests since the worker began.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mnemo::memory {

// Why a sequence runs in the worker instead of in the service: values of the label `reason`.
inline constexpr std::string_view kServiceFull = "service_full";
inline constexpr std::string_view kServiceIncapable = "service_incapable";
inline constexpr std::string_view kServiceAbsent = "service_absent";
inline constexpr std::string_view kServiceLost = "service_lost";
// The service lost keys and values that it kept.
inline constexpr std::string_view kKvLost = "kv_lost";
inline constexpr std::array kFallbackReasons = {kServiceFull, kServiceIncapable, kServiceAbsent, kServiceLost,
                                                kKvLost};

// Numbers of mnemo.v1.MemoryStep.Step.
enum class MemoryStepKind { kPrepare = 1, kRelevancy = 2, kRetrieval = 3, kApply = 4 };

struct MemoryStepStat {
  MemoryStepKind step = MemoryStepKind::kPrepare;
  std::string method;
  std::string device;
  uint64_t time_ns = 0;
  uint64_t bytes = 0;
  // prepare: tokens indexed; relevancy: tokens scored; retrieval: tokens selected; apply: tokens attended to.
  // The count is the sum over all layers and KV heads.
  uint64_t count = 0;
  // Relevancy in the service: submissions that the worker waited for, one a layer. A submission that several
  // sequences share counts for each of them.
  uint64_t round_trips = 0;

  // Adds figures of the same step.
  void Add(const MemoryStepStat& more) {
    time_ns += more.time_ns;
    bytes += more.bytes;
    count += more.count;
    round_trips += more.round_trips;
  }
};

// Upper bounds of the buckets that worker, front end and Prometheus have in common.
inline constexpr std::array<uint64_t, 18> kDurationBoundsNs = {
    1'000,      2'000,      5'000,      10'000,      20'000,      50'000,
    100'000,    200'000,    500'000,    1'000'000,   2'000'000,   5'000'000,
    10'000'000, 20'000'000, 50'000'000, 100'000'000, 500'000'000, 2'000'000'000};
inline constexpr std::array<uint64_t, 9> kTokenBounds = {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

template <const auto& kBounds>
struct FixedHistogram {
  static constexpr const auto& bounds = kBounds;

  void Observe(uint64_t value) {
    const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), value) - kBounds.begin();
    ++buckets[static_cast<size_t>(bucket)];
    ++count;
    sum += value;
  }

  // Not cumulative. The last one counts values above all bounds.
  std::array<uint64_t, kBounds.size() + 1> buckets{};
  uint64_t count = 0;
  uint64_t sum = 0;
};
using DurationHistogram = FixedHistogram<kDurationBoundsNs>;
using TokenHistogram = FixedHistogram<kTokenBounds>;

// Totals of a method's step on a device, and the distribution of its time in one step of the engine.
struct StepTotal : MemoryStepStat {
  DurationHistogram times;
};

// Decode rows of resident sequences: selected tokens over all layers and KV heads, and those among them that
// were fetched because the worker did not have them.
struct HotStats {
  uint64_t selected_tokens = 0;
  uint64_t missed_tokens = 0;
};

struct PipelineStats {
  bool service_attached = false;
  std::string service;  // name of the service, when attached
  int64_t inline_indexes = 0;
  int64_t inline_bytes = 0;
  int64_t service_indexes = 0;
  DurationHistogram round_trips;  // submissions to the service that the worker waited for
  uint64_t bytes_to_service = 0;
  uint64_t bytes_from_service = 0;
  TokenHistogram selected_tokens;  // for each decode row, layer and KV head
  HotStats hot;
  // Sequences that run in the worker instead of in the service, by reason (kFallbackReasons).
  std::map<std::string, uint64_t> fallbacks;
  std::vector<StepTotal> steps;
};

}  // namespace mnemo::memory
