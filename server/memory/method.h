// A memory method: what each of the four steps does, as data. The steps are made of the closed set of
// operations of proto/layout, so that a memory device needs no knowledge of methods, and no method knows
// where its steps run (placement.h). A new method is one folder under methods/ and one line in method.cc.
#pragma once

#include <span>
#include <string_view>

#include "devices/base/status.h"
#include "proto/layout/descriptor.h"
#include "server/memory/attention_settings.h"

namespace mnemo::memory {

// Of a model's indexed layers.
struct MemoryShape {
  int layers = 0;  // indexed ones
  int kv_heads = 0;
  int group = 0;  // query heads of a KV head
  int head_dim = 0;
  float softmax_scale = 0;
};

struct MethodSteps {
  struct Prepare {
    layout::Format record_format = layout::kFormatCodes2;
  } prepare;
  struct Relevancy {
    layout::ScoreOp score_op = layout::kScoreDot;
    layout::GroupOp group_op = layout::kGroupMax;
    bool pages_of_64 = false;  // entries of the page methods
  } relevancy;
  struct Retrieval {
    int first_stage_tokens = 0;  // 0: one stage
  } retrieval;
  struct Apply {
    int entry_tokens = 1;  // that one selected entry stands for
  } apply;
};

struct MethodOptions {
  int entry_tokens = 16;  // that an entry of page_bound and block_mean stands for: 16 or 64
};

struct Method {
  AttentionSettings::Method id = AttentionSettings::Method::kDense;
  std::string_view name;
  MethodSteps (*steps)(const AttentionSettings& settings, const MethodOptions& options) = nullptr;
};

// All but dense, which has no memory.
std::span<const Method* const> Methods();
// nullptr for dense.
const Method* FindMethod(AttentionSettings::Method id);

// What one decode position attends to, a function of settings, position and the first decode position alone:
// [0, first_end), `k` entries of [begin, end), and [tail_begin, position].
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
// keep_first does. Where reuse_interval positions share a selection, there is room for the last of them; a
// budget that has none for what stands before the newest keep_last leaves the oldest of that out.
PositionPlan PlanPosition(const AttentionSettings& settings, const MethodSteps& steps, int position,
                          int decode_begin);

// INVALID_ARGUMENT or UNIMPLEMENTED names the field and the bound.
absl::Status CheckSettings(const AttentionSettings& settings, const MemoryShape& shape);

}  // namespace mnemo::memory
