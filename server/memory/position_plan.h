// The positions that one decode step attends to.
#pragma once

#include "server/memory/attention_settings.h"
#include "server/memory/methods/method.h"

namespace mnemo::memory {

// Positions that one decode position attends to: a function of settings, position and the first decode
// position alone. They are [0, first_end), `k` entries of [begin, end), and [tail_begin, position].
struct PositionPlan {
  bool dense = false;  // the budget holds all positions
  int anchor = 0;      // the position whose query selects; later ones up to the next anchor share it
  int first_end = 0;
  int begin = 0;
  int end = 0;  // whole pages of 64
  int tail_begin = 0;
  int k = 0;   // entries; at most as many as there are
  int k1 = 0;  // entries of the first stage, 0: one stage
};

// The open page and keep_last lie behind `end`, are attended to exactly and count in the budget, as
// keep_first does. Where reuse_interval positions share a selection, there is room for the last of them. A
// budget without room for the positions before the newest keep_last leaves the oldest of them out.
PositionPlan PlanPosition(const AttentionSettings& settings, const methods::MethodSteps& steps, int position,
                          int decode_begin);

}  // namespace mnemo::memory
