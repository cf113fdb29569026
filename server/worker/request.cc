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

// Takes prompt and generated tokens out of `request`.
RequestProgress TakeTokens(EngineRequest* request) {
  RequestProgress progress;
  progress.ids = std::move(request->prompt);
  progress.ids.insert(progress.ids.end(), request->generated.begin(), request->generated.end());
  progress.next_scored = request->prompt_logprobs_from;
  request->prompt = {};
  request->generated = {};
  return progress;
}

EngineRequest WithSortedEnds(EngineRequest request) {
  std::sort(request.end_ids.begin(), request.end_ids.end());
  return request;
}

}  // namespace

Request::Request(EngineRequest request, uint64_t arrival_number, Clock::time_point submit_time)
    : prompt_count_(static_cast<int>(request.prompt.size())),
      prefill_end_(request.decode_from > 0 ? request.decode_from : prompt_count_),
      progress(TakeTokens(&request)),
      spec(WithSortedEnds(std::move(request))),
      arrival(arrival_number),
      submitted(submit_time) {}

void Request::Prepare() {
  if (std::exchange(prepared_, true)) return;
  const size_t max_tokens = static_cast<size_t>(prompt_count_) + spec.max_tokens;
  progress.ids.reserve(max_tokens);
  const int max_pages = PagesFor(max_positions());
  pages.table.reserve(static_cast<size_t>(max_pages));
  if (resident()) pages.resident.Prepare(residence.share, max_pages);
  progress.counted = NeedsCounts(spec.sampling);
  if (!progress.counted) return;
  progress.counts.Reserve(max_tokens);
  for (int i = 0; i < token_count(); ++i) {
    if (i < prompt_count_) progress.counts.AddPrompt(progress.ids[i]);
    if (i >= prompt_count_) progress.counts.AddOutput(progress.ids[i]);
  }
}

int Request::reuse_end() const {
  // The last prompt token's logits give the first output.
  int end = std::min(prompt_count_ - 1, prefill_end_);
  // The token at position t is scored by the logits of the position before.
  if (scoring()) end = std::min(end, std::max(progress.next_scored - 1, 0));
  return end;
}

void Request::AppendOutput(int32_t id) {
  progress.ids.push_back(id);
  if (progress.counted) progress.counts.AddOutput(id);
}

EngineFinish Request::Outcome() const {
  if (scoring()) return EngineFinish::kNone;
  if (output_count() > 0) {
    if (std::binary_search(spec.end_ids.begin(), spec.end_ids.end(), progress.ids.back())) {
      return EngineFinish::kEndToken;
    }
    if (output_count() >= spec.max_tokens) return EngineFinish::kLength;
    return EngineFinish::kNone;
  }
  return spec.max_tokens == 0 && pages.computed == prompt_count_ ? EngineFinish::kLength
                                                                 : EngineFinish::kNone;
}

}  // namespace mnemo::worker
