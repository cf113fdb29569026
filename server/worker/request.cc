#include "server/worker/request.h"

#include <algorithm>
#include <utility>

#include "devices/kv_cache.h"

namespace mnemo::worker {
namespace {

using devices::PagesFor;

bool NeedsCounts(const devices::SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

}  // namespace

Request::Request(EngineRequest request, uint64_t arrival_number, Clock::time_point submit_time)
    : spec(std::move(request)),
      arrival(arrival_number),
      submitted(submit_time),
      next_scored(spec.prompt_logprobs_from),
      prompt_count_(static_cast<int>(spec.prompt.size())),
      prefill_end_(spec.decode_from > 0 ? spec.decode_from : prompt_count_) {
  ids = std::move(spec.prompt);
  ids.insert(ids.end(), spec.generated.begin(), spec.generated.end());
  spec.prompt = {};
  spec.generated = {};
  std::sort(spec.end_ids.begin(), spec.end_ids.end());
}

void Request::Prepare() {
  if (prepared) return;
  prepared = true;
  ids.reserve(static_cast<size_t>(prompt_count_) + spec.max_tokens);
  const auto max_pages = static_cast<size_t>(PagesFor(max_positions()));
  pages.reserve(max_pages);
  if (residency.resident()) {
    resident.Prepare(residency, static_cast<int>(max_pages));
    staged_pages.reserve(max_pages);
  }
  counted = NeedsCounts(spec.sampling);
  if (!counted) return;
  counts.Reserve(static_cast<size_t>(prompt_count_) + spec.max_tokens);
  for (int i = 0; i < prompt_count_; ++i) counts.AddPrompt(ids[i]);
  for (size_t i = prompt_count_; i < ids.size(); ++i) counts.AddOutput(ids[i]);
}

int Request::reuse_end() const {
  int end =
      std::min(prompt_count_ - 1, prefill_end_);  // the last prompt token's logits give the first output
  // The token at position t is scored by the logits of the position before.
  if (scoring()) end = std::min(end, std::max(next_scored - 1, 0));
  return end;
}

void Request::AppendOutput(int32_t id) {
  ids.push_back(id);
  if (counted) counts.AddOutput(id);
}

EngineFinish Request::Outcome() const {
  if (scoring()) return EngineFinish::kNone;
  if (output_count() > 0) {
    if (std::binary_search(spec.end_ids.begin(), spec.end_ids.end(), ids.back())) {
      return EngineFinish::kEndToken;
    }
    if (output_count() >= spec.max_tokens) return EngineFinish::kLength;
    return EngineFinish::kNone;
  }
  return spec.max_tokens == 0 && computed == prompt_count_ ? EngineFinish::kLength : EngineFinish::kNone;
}

}  // namespace mnemo::worker
