#include "server/dispatch/request_state.h"

#include <algorithm>

namespace mnemo::dispatch {
namespace {

// Drops the first `count` of a column that may be shorter.
template <typename Column>
void DropFirst(Column* column, int count) {
  column->erase(column->begin(), column->begin() + std::min(count, column->size()));
}

}  // namespace

absl::Status RequestState::Accept(internal::v1::Event* event) {
  if (event->prompt_ids_size() > 0) {
    if (!next_prompt) next_prompt = event->prompt_first();
    const int32_t heard = *next_prompt - event->prompt_first();
    if (heard < 0) {
      return Internal("request {}: scored prompt position {} came, {} was due", id, event->prompt_first(),
                      *next_prompt);
    }
    const int drop = std::min<int>(heard, event->prompt_ids_size());
    DropFirst(event->mutable_prompt_ids(), drop);
    DropFirst(event->mutable_prompt_details(), drop);
    event->set_prompt_first(event->prompt_first() + drop);
    *next_prompt += event->prompt_ids_size();
  }
  if (event->token_ids_size() > 0) {
    const int32_t due = static_cast<int32_t>(generated.size());
    const int32_t heard = due - event->first_index();
    if (heard < 0) {
      return Internal("request {}: output index {} came, {} was due", id, event->first_index(), due);
    }
    const int drop = std::min<int>(heard, event->token_ids_size());
    DropFirst(event->mutable_token_ids(), drop);
    DropFirst(event->mutable_details(), drop);
    event->set_first_index(event->first_index() + drop);
    // Where a worker with a larger pool goes on, the limit stays what the first one made of it.
    if (event->summary().max_tokens() > 0) submit.set_max_tokens(event->summary().max_tokens());
    generated.insert(generated.end(), event->token_ids().begin(), event->token_ids().end());
    // The summary that came with the first token has been heard too; what memory processing cost goes on.
    if (due > 0 && !event->has_finish() && event->summary().memory_steps_size() == 0) event->clear_summary();
  }
  return absl::OkStatus();
}

int64_t RequestState::OutstandingTokens(int64_t cached_tokens) const {
  const int64_t prompt = std::max<int64_t>(0, submit.prompt_size() - cached_tokens);
  return prompt + std::max(0, submit.max_tokens());
}

}  // namespace mnemo::dispatch
