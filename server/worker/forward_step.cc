#include "server/worker/forward_step.h"

#include "devices/base/status.h"
#include "server/worker/request_memory.h"

namespace mnemo::worker {

ForwardStep::ForwardStep(model::Transformer* transformer, devices::KvCache* cache, memory::Pipeline* pipeline)
    : transformer_(transformer),
      cache_(cache),
      pipeline_(pipeline),
      staging_(cache->shape().pages, cache->shape().staging_pages, cache->shape().extra_pages) {
  ids_.reserve(static_cast<size_t>(transformer->options().max_rows));
  sequences_.reserve(static_cast<size_t>(transformer->options().max_sequences));
}

bool ForwardStep::Run(std::span<const PlannedSequence> plan) {
  ids_.clear();
  for (const PlannedSequence& planned : plan) {
    const auto first = planned.request->progress.ids.begin() + planned.request->pages.computed;
    ids_.insert(ids_.end(), first, first + planned.row_count);
  }
  // Pages that earlier steps completed are indexed now, when the tokens of those steps are on their way
  // already.
  for (const PlannedSequence& planned : plan) {
    const Request& request = *planned.request;
    if (request.residence.memory != nullptr && !request.resident())
      pipeline_->CatchUp(request.residence.memory, request.pages.computed, request.pages.table);
  }
  // The try after the loss of a service does without: the sequences of the step are the worker's own then.
  while (!Try(plan).ok()) {
    for (const PlannedSequence& planned : plan) {
      if (RequestMemory::Lost(*planned.request)) return false;
    }
  }
  return true;
}

// UNAVAILABLE: the memory service went; the step is to be done again.
absl::Status ForwardStep::Try(std::span<const PlannedSequence> plan) {
  sequences_.clear();
  if (pipeline_ != nullptr) pipeline_->Begin();
  staging_.Reset();
  int32_t row = 0;
  for (const PlannedSequence& planned : plan) {
    const Request& request = *planned.request;
    // Begin or an earlier row found the loss. Rows of the sequence have nothing to attend to, a prompt's rows
    // included.
    if (RequestMemory::Lost(request)) return Unavailable("the memory service went with the K and V it kept");
    model::Transformer::Sequence& sequence = sequences_.emplace_back();
    sequence.row_count = planned.row_count;
    sequence.position_begin = request.pages.computed;
    sequence.pages = request.pages.table.data();
    if (request.resident()) sequence.indexed_pages = request.pages.resident.indexed().data();
    if (pipeline_ != nullptr) AddMemory(planned, row, &sequence);
    row += planned.row_count;
  }
  if (pipeline_ == nullptr || pipeline_->idle()) {
    transformer_->Forward(cache_, ids_, sequences_);
    return absl::OkStatus();
  }
  MNEMO_RETURN_IF_ERROR(pipeline_->Seal());
  transformer_->Forward(cache_, ids_, sequences_, pipeline_);
  return pipeline_->End();
}

// Tells the pipeline of the rows of `planned`, which begin at `row` of the step, and `sequence` of their
// selection.
void ForwardStep::AddMemory(const PlannedSequence& planned, int32_t row,
                            model::Transformer::Sequence* sequence) {
  const Request* request = planned.request;
  const RequestResidence& residence = request->residence;
  const RequestPages& pages = request->pages;
  if (residence.memory != nullptr && !request->prefilling()) {
    MNEMO_CHECK(planned.row_count == 1);
    sequence->sparse = pipeline_->AddRow(residence.memory, row, pages.computed,
                                         request->resident() ? pages.resident.indexed() : pages.table);
  }
  if (sequence->sparse != nullptr) return;
  if (request->resident()) {
    // The rows attend to everything: pages that are not here stand in staging pages.
    const StagingArea::Placement placement =
        staging_.Place(pages.resident.indexed(), devices::PagesFor(pages.computed));
    pipeline_->AddStaged(residence.memory, placement.staged);
    sequence->indexed_pages = placement.table;
  }
  pipeline_->AddDense(int64_t{planned.row_count} * (pages.computed + (planned.row_count + 1) / 2));
}

}  // namespace mnemo::worker
