// Prompts of a load run: token ids of given lengths, texts, or a recorded trace. All are a function of the
// seed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/client.h"
#include "devices/base/status.h"

namespace mnemo::bench {

// SplitMix64 (Steele, Lea, Flood 2014): the n-th number of a stream is Mix(key + n x golden ratio).
uint64_t Mix(uint64_t value);
class Random {
 public:
  explicit Random(uint64_t key) : state_(key) {}
  uint64_t Next();
  double Uniform();                            // [0, 1)
  int64_t InRange(int64_t low, int64_t high);  // both included

 private:
  uint64_t state_;
};

// "128" or "64:512", both ends included.
struct LengthRange {
  int64_t low = 0;
  int64_t high = 0;
  static absl::StatusOr<LengthRange> Parse(std::string_view text);
};

// One line of a trace in the format that Mooncake published: {"timestamp": ms, "input_length": tokens,
// "output_length": tokens, "hash_ids": [id, ...]}. There is one id for each 512 tokens of input; equal ids
// mean equal prefixes up to there.
struct TraceEntry {
  double arrival = 0;  // seconds since the first entry
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<uint64_t> hash_ids;
};
inline constexpr int64_t kTraceBlockTokens = 512;

// Sorted by arrival; entries of equal times keep their order. With fewer hash ids than blocks, the rest of
// the prompt is the entry's own. An error names FILE:LINE.
absl::StatusOr<std::vector<TraceEntry>> ParseTrace(std::string_view text, const std::string& name);

// One prompt a line: plain text, {"prompt": "...", "max_tokens": n}, or {"messages": [...], "tools":
// [...], "max_tokens": n} for a chat (client/bench/messages.h).
struct TextPrompt {
  std::string text;
  std::optional<v1::Chat> chat;  // instead of the text
  int64_t max_tokens = -1;       // -1 = as the options say
};
absl::StatusOr<std::vector<TextPrompt>> ParsePrompts(std::string_view text, const std::string& name);

// Arrival times in seconds of a Poisson process with `rate` events a second: exponential gaps, the first
// after one gap.
class PoissonArrivals {
 public:
  PoissonArrivals(double rate, uint64_t seed) : rate_(rate), random_(seed) {}
  double Next();

 private:
  double rate_;
  Random random_;
  double time_ = 0;
};

// Prompts of ids drawn evenly from `vocabulary`. Equal keys give equal ids, whatever other keys are drawn.
class PromptMaker {
 public:
  // `vocabulary`: not empty, ids of ordinary text.
  PromptMaker(std::vector<int32_t> vocabulary, uint64_t seed)
      : vocabulary_(std::move(vocabulary)), seed_(seed) {}
  // The first shared_tokens ids, at most `tokens`, are the same for every index.
  std::vector<int32_t> Random(int64_t index, int64_t tokens, int64_t shared_tokens) const;
  std::vector<int32_t> FromTrace(int64_t index, const TraceEntry& entry) const;

 private:
  void Append(uint64_t stream, uint64_t key, int64_t count, std::vector<int32_t>* ids) const;
  std::vector<int32_t> vocabulary_;
  uint64_t seed_;
};

}  // namespace mnemo::bench
