#include "server/worker/step_sampler.h"

#include <algorithm>

#include "devices/base/status.h"

namespace mnemo::worker {

StepSampler::StepSampler(model::Transformer* transformer, devices::Device* device, StepReport* report)
    : transformer_(transformer),
      device_(device),
      report_(report),
      vocabulary_(transformer->config().vocabulary) {
  const auto max_rows = static_cast<size_t>(transformer->options().max_rows);
  const auto max_logit_rows = static_cast<size_t>(transformer->options().max_logit_rows);
  wants_.reserve(max_rows);
  want_rows_.reserve(max_rows);
  rows_.reserve(max_logit_rows);
  results_.resize(max_logit_rows);
}

void StepSampler::Collect(std::span<const PlannedSequence> plan) {
  wants_.clear();
  want_rows_.clear();
  int32_t row = 0;
  for (const PlannedSequence& planned : plan) {
    Request* request = planned.request;
    const int end = request->pages.computed + planned.row_count;
    if (request->scoring()) CollectScores(request, end, row);
    // Output that is known already (replay, preemption) is only fed.
    if (end == request->token_count() && request->spec.max_tokens > 0) {
      wants_.push_back({.request = request, .position = end - 1, .output = true});
      want_rows_.push_back(row + planned.row_count - 1);
    }
    row += planned.row_count;
  }
}

// Rows of positions [computed, end), which begin at `first_row` of the step.
void StepSampler::CollectScores(Request* request, int end, int32_t first_row) {
  RequestProgress& progress = request->progress;
  if (progress.next_scored == 0) {  // no position before it could give it a probability
    report_->EventOf(request).prompt_tokens.push_back({.index = 0, .id = progress.ids[0]});
    progress.next_scored = 1;
  }
  const int begin = request->pages.computed;
  const int last = std::min(end, request->prompt_count() - 1);
  for (int position = std::max(begin, progress.next_scored - 1); position < last; ++position) {
    wants_.push_back({.request = request, .position = position});
    want_rows_.push_back(first_row + position - begin);
  }
}

int StepSampler::Sample() {
  const size_t rows_a_call = results_.size();
  for (size_t begin = 0; begin < wants_.size(); begin += rows_a_call) {
    const size_t count = std::min(rows_a_call, wants_.size() - begin);
    const float* logits = transformer_->Logits(std::span(want_rows_).subspan(begin, count));
    rows_.clear();
    for (size_t i = 0; i < count; ++i) {
      rows_.push_back(RowOf(wants_[begin + i], logits + i * static_cast<size_t>(vocabulary_)));
    }
    device_->Sample(rows_, vocabulary_, std::span(results_).first(count));
    for (size_t i = 0; i < count; ++i) Take(results_[i], wants_[begin + i]);
  }
  return static_cast<int>(
      std::count_if(wants_.begin(), wants_.end(), [](const Want& want) { return want.output; }));
}

devices::SampleRow StepSampler::RowOf(const Want& want, const float* logits) const {
  const Request& request = *want.request;
  devices::SampleRow row{.logits = logits, .params = &request.spec.sampling};
  if (want.output) {
    row.counts = request.progress.counts.counts();
    row.bias = request.spec.bias;
    row.index = request.output_count();
    row.alternatives = request.spec.logprobs;
  } else {
    row.forced_id = request.progress.ids[static_cast<size_t>(want.position) + 1];
    row.alternatives = request.spec.prompt_logprobs;
  }
  return row;
}

void StepSampler::Take(const devices::SampleResult& result, const Want& want) {
  Request* request = want.request;
  MNEMO_CHECK(result.id >= 0 && result.id < vocabulary_);
  EngineEvent& event = report_->EventOf(request);
  if (!want.output) {
    event.prompt_tokens.push_back(
        {.index = want.position + 1, .id = result.id, .has_logprob = true, .detail = result});
    request->progress.next_scored = want.position + 2;
    return;
  }
  EngineToken& token = event.tokens.emplace_back();
  token.index = request->output_count();
  token.id = result.id;
  token.has_logprob = request->spec.logprobs >= 0;
  if (token.has_logprob) token.detail = result;
  request->AppendOutput(result.id);
}

}  // namespace mnemo::worker
