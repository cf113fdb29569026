// OpRunner's attention: divides the work into items and hands them to threads.
#include <algorithm>

#include "devices/cpu/cpu_kv_cache.h"
#include "devices/cpu/op_runner.h"
#include "devices/listed_keys.h"

namespace mnemo::devices::cpu {
namespace {

// Query positions per item.
constexpr int kItemPositions = 64;
// From this number of query rows on, values are converted to float32 once for all rows.
constexpr int kConvertRows = 12;
// Items per thread; with fewer items, the keys of a sequence are divided as well.
constexpr int kItemsPerThread = 4;
constexpr int64_t kPartialBytes = int64_t{16} << 20;
// Query rows and heads whose splits are merged as one item.
constexpr int kMergeStates = 4;

int ValueStride(int head_dim) { return (head_dim + kTileRows - 1) / kTileRows * kTileRows; }
int64_t StateFloats(int head_dim) { return kStateHeader + ValueStride(head_dim); }

int FirstSplit(const AttentionOp& op, int position) {
  return op.window > 0 ? std::max(0, position - op.window + 1) / kKvSplitTokens : 0;
}

int LastPosition(const AttentionSequence& sequence) {
  return sequence.position_begin + sequence.row_count - 1;
}

// Returns the splits that all rows of a sequence have together; with listed keys, those of the KV head with
// the longest list.
int SplitsOf(const AttentionOp& op, const AttentionSequence& sequence) {
  const int last = LastPosition(sequence);
  if (sequence.sparse == nullptr) {
    return last / kKvSplitTokens + 1 - FirstSplit(op, sequence.position_begin);
  }
  int splits = 0;
  for (int head = 0; head < op.kv_heads; ++head) {
    splits = std::max(splits, ListedKeys(*sequence.sparse, head, last).splits());
  }
  return splits;
}

// Returns the number of keys that the last row reads, for the first KV head.
int64_t KeysOf(const AttentionOp& op, const AttentionSequence& sequence) {
  const int last = LastPosition(sequence);
  if (sequence.sparse != nullptr) return ListedKeys(*sequence.sparse, 0, last).count();
  return op.window > 0 ? std::min(last + 1, op.window) : last + 1;
}

}  // namespace

struct OpRunner::AttentionScratch {
  // [positions * group, QueryStride] of int16_t.
  float* q;
  // [positions * group].
  float* q_scales;
  // States of one split.
  float* states;
  // Merged states of the splits so far.
  float* merged;
  // [kMaxQueryTile or heads][kKeysPerSplit].
  float* scores;
  float* converted;
  // [2][kKeysPerSplit + kListPadding] pointers. The fields after it hold the keys of a page for ListedTask.
  float* rows;
  // [head_dim rounded up to even, kKeysPerPage] of int16_t.
  float* keys;
  // [kKeysPerPage].
  float* key_scales;
};

struct OpRunner::AttentionPlan {
  bool cut_keys = false;
  int64_t items = 0;
  int group = 0;
  int64_t state_floats = 0;
};

size_t OpRunner::LayOut(int heads, int head_dim, float* base, AttentionScratch* scratch) {
  const size_t rows = static_cast<size_t>(kItemPositions) * static_cast<size_t>(heads);
  const size_t sizes[] = {rows * static_cast<size_t>(QueryStride(head_dim) / 2),
                          rows,
                          rows * static_cast<size_t>(StateFloats(head_dim)),
                          rows * static_cast<size_t>(StateFloats(head_dim)),
                          static_cast<size_t>(std::max(heads, kMaxQueryTile)) * kKeysPerSplit,
                          size_t{kKeysPerSplit} * static_cast<size_t>(ValueStride(head_dim)),
                          size_t{kKeysPerSplit + kListPadding} * 2 * sizeof(void*) / sizeof(float),
                          size_t{kKeysPerPage} * static_cast<size_t>(ValueStride(head_dim) / 2),
                          size_t{kKeysPerPage}};
  float** const parts[] = {&scratch->q,      &scratch->q_scales, &scratch->states,
                           &scratch->merged, &scratch->scores,   &scratch->converted,
                           &scratch->rows,   &scratch->keys,     &scratch->key_scales};
  static_assert(std::size(sizes) == std::size(parts));
  size_t total = 0;
  for (size_t i = 0; i < std::size(sizes); ++i) {
    if (base != nullptr) *parts[i] = base + total;
    total += (sizes[i] + 15) / 16 * 16;
  }
  return total;
}

absl::Status OpRunner::ReserveAttention(int max_heads, const KvCacheShape& shape) {
  if (max_heads <= attention_heads_ && shape.head_dim <= attention_head_dim_) return absl::OkStatus();
  max_heads = std::max(max_heads, attention_heads_);
  const int head_dim = std::max(shape.head_dim, attention_head_dim_);
  AttentionScratch unused = {};
  const size_t bytes = LayOut(max_heads, head_dim, nullptr, &unused) * sizeof(float);
  for (ThreadScratch& scratch : scratch_) {
    MNEMO_ASSIGN_OR_RETURN(scratch.attention, CpuMemory::Create(bytes));
  }
  const int64_t state_bytes = StateFloats(head_dim) * static_cast<int64_t>(sizeof(float));
  partial_capacity_ = kPartialBytes / state_bytes;
  MNEMO_ASSIGN_OR_RETURN(partials_, CpuMemory::Create(static_cast<size_t>(partial_capacity_ * state_bytes)));
  attention_heads_ = max_heads;
  attention_head_dim_ = head_dim;
  return absl::OkStatus();
}

OpRunner::AttentionPlan OpRunner::PlanAttention(const AttentionOp& op) const {
  AttentionPlan plan;
  plan.group = op.heads / op.kv_heads;
  plan.state_floats = StateFloats(op.head_dim);
  int64_t cut_items = 0;
  int64_t partials = 0;
  bool few_rows = true;
  for (const AttentionSequence& sequence : op.sequences) {
    MNEMO_CHECK(sequence.sparse == nullptr || (sequence.row_count == 1 && op.window == 0));
    const int64_t splits = SplitsOf(op, sequence);
    plan.items += (sequence.row_count + kItemPositions - 1) / kItemPositions;
    few_rows = few_rows && sequence.row_count <= kItemPositions;
    cut_items += splits;
    partials += splits * sequence.row_count * op.heads;
  }
  plan.items *= op.kv_heads;
  cut_items *= op.kv_heads;
  plan.cut_keys = few_rows && partials <= partial_capacity_ && cut_items > plan.items &&
                  plan.items < int64_t{kItemsPerThread} * pool_->threads();
  if (plan.cut_keys) plan.items = cut_items;
  return plan;
}

OpRunner::OpSteps OpRunner::StepsOf(const AttentionOp& op) const {
  const AttentionPlan plan = PlanAttention(op);
  OpSteps steps;
  steps.items[0] = plan.items;
  int64_t states = 0;
  // Keys and values read, for one KV head.
  int64_t reads = 0;
  for (const AttentionSequence& sequence : op.sequences) {
    states += int64_t{sequence.row_count} * op.heads;
    reads += sequence.row_count * KeysOf(op, sequence) * op.head_dim * 2;
  }
  if (plan.cut_keys) {
    steps.parts = 2;
    steps.items[1] = (states + kMergeStates - 1) / kMergeStates;
  }
  steps.alone = reads * op.kv_heads * int64_t{sizeof(uint16_t)} < kAloneBytes;
  return steps;
}

// Every thread walks the items in the same order and processes those whose numbers it draws.
void OpRunner::RunOp(const AttentionOp& op, int part, int thread, Items& items) {
  const AttentionPlan plan = PlanAttention(op);
  if (part == 1) {
    MergePartials(op, plan, thread, items);
    return;
  }
  int64_t wanted = items.Next();
  int64_t index = 0;
  int64_t partial = 0;
  for (const AttentionSequence& sequence : op.sequences) {
    AttentionItem item;
    item.sequence = &sequence;
    const int first_split = FirstSplit(op, sequence.position_begin);
    const int splits = SplitsOf(op, sequence);
    const int blocks = (sequence.row_count + kItemPositions - 1) / kItemPositions;
    const int64_t count = int64_t{op.kv_heads} * (plan.cut_keys ? splits : blocks);
    while (wanted < index + count) {
      const int64_t local = wanted - index;
      item.kv_head = static_cast<int>(local % op.kv_heads);
      const int rest = static_cast<int>(local / op.kv_heads);
      if (plan.cut_keys) {
        item.row = 0;
        item.rows = sequence.row_count;
        item.split_begin = first_split + rest;
        item.split_end = item.split_begin + 1;
        item.partial = partial + (int64_t{item.kv_head} * splits + rest) * sequence.row_count * plan.group;
      } else {
        // The last rows see the most keys: starting with them makes threads finish together.
        item.row = (blocks - 1 - rest) * kItemPositions;
        item.rows = std::min(kItemPositions, sequence.row_count - item.row);
        item.split_begin = FirstSplit(op, sequence.position_begin + item.row);
        item.split_end = sequence.sparse != nullptr
                             ? splits
                             : (sequence.position_begin + item.row + item.rows - 1) / kKvSplitTokens + 1;
      }
      AttendItem(op, plan, item, thread);
      wanted = items.Next();
    }
    index += count;
    partial += int64_t{op.heads} * splits * sequence.row_count;
  }
}

// Attends to the splits of the item one by one. Writes the states of each split to `states`, and merges them
// into `merged` unless that is nullptr. The queries are in the scratch memory.
void OpRunner::AttendSplits(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item,
                            const AttentionScratch& scratch, float* states, float* merged) {
  CacheView cache = static_cast<const CpuKvCache*>(op.cache)->View(op.layer);
  cache.base += item.kv_head * cache.head_stride;
  if (cache.staging != nullptr) cache.staging += item.kv_head * cache.head_stride;
  const int query_rows = item.rows * plan.group;
  for (int split = item.split_begin; split < item.split_end; ++split) {
    if (item.sequence->sparse != nullptr) {
      if (!AttendListedSplit(op, plan, item, split, cache, scratch, states)) return;
    } else {
      kernels_.attend({.q = reinterpret_cast<const int16_t*>(scratch.q),
                       .q_scales = scratch.q_scales,
                       .positions = item.rows,
                       .group = plan.group,
                       .head_dim = op.head_dim,
                       .position_begin = item.sequence->position_begin + item.row,
                       .window = op.window,
                       .split = split,
                       .pages = item.sequence->pages,
                       .cache = cache,
                       .next_split_follows = split + 1 < item.split_end,
                       .states = states,
                       .state_stride = plan.state_floats,
                       .scores = scratch.scores,
                       .converted = query_rows >= kConvertRows ? scratch.converted : nullptr});
    }
    if (merged == nullptr) continue;
    for (int row = 0; row < query_rows; ++row) {
      kernels_.merge_state(states + row * plan.state_floats, op.head_dim, merged + row * plan.state_floats);
    }
  }
}

// Returns false when the list of the KV head ends before the split.
bool OpRunner::AttendListedSplit(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item,
                                 int split, const CacheView& cache, const AttentionScratch& scratch,
                                 float* states) {
  const AttentionSequence& sequence = *item.sequence;
  const SparseSelection& sparse = *sequence.sparse;
  const ListedKeys list(sparse, item.kv_head, sequence.position_begin);
  const int64_t begin = int64_t{split} * kKvSplitTokens;
  const int64_t end = std::min(list.count(), begin + kKvSplitTokens);
  if (begin >= end) return false;
  auto** values = reinterpret_cast<const uint16_t**>(scratch.rows);
  auto** scales = reinterpret_cast<const float**>(values + kKvSplitTokens + kListPadding);
  int64_t i = 0;
  const auto add = [&](int64_t page_id, int64_t slot) {
    const uint16_t* page = cache.Page(page_id);
    values[i] = page + cache.value_offset + slot * cache.row_stride;
    scales[i] = reinterpret_cast<const float*>(page + cache.scale_offset) + slot;
    ++i;
  };
  list.EachRun(begin, end, [&](int first, int count, int64_t place) {
    if (place != ListedKeys::kInPages) {
      for (auto at = static_cast<uint64_t>(place); count > 0; ++at, --count) {
        add(static_cast<int64_t>(at / kPageTokens), static_cast<int64_t>(at % kPageTokens));
      }
      return;
    }
    for (auto p = static_cast<uint32_t>(first); count > 0; ++p, --count) {
      add(sequence.pages[p / kPageTokens], p % kPageTokens);
    }
  });
  std::fill(values + i, values + i + kListPadding, values[i - 1]);
  std::fill(scales + i, scales + i + kListPadding, scales[i - 1]);
  kernels_.attend_listed(
      {.q = reinterpret_cast<const int16_t*>(scratch.q),
       .q_scales = scratch.q_scales,
       .group = plan.group,
       .head_dim = op.head_dim,
       .values = values,
       .scales = scales,
       .pages = sparse.entry_tokens == kKeysPerPage && sparse.first_end % kKeysPerPage == 0,
       .count = static_cast<int>(end - begin),
       .cache = cache,
       .states = states,
       .state_stride = plan.state_floats,
       .scores = scratch.scores,
       .keys = reinterpret_cast<int16_t*>(scratch.keys),
       .key_scales = scratch.key_scales});
  return true;
}

void OpRunner::AttendItem(const AttentionOp& op, const AttentionPlan& plan, const AttentionItem& item,
                          int thread) {
  AttentionScratch scratch = {};
  LayOut(attention_heads_, attention_head_dim_, scratch_[static_cast<size_t>(thread)].attention.as<float>(),
         &scratch);
  const int query_rows = item.rows * plan.group;
  const int64_t q_row = static_cast<int64_t>(op.heads) * op.head_dim;
  const int64_t q_offset = static_cast<int64_t>(item.kv_head) * plan.group * op.head_dim;
  const int64_t first_row = item.sequence->row_begin + item.row;

  int16_t* q = reinterpret_cast<int16_t*>(scratch.q);
  const CacheFormat format = static_cast<const CpuKvCache*>(op.cache)->View(op.layer).format;
  for (int i = 0; i < query_rows; ++i) {  // exp(x) = 2^(x log2 e)
    scratch.q_scales[i] = kernels_.quantize_query(op.q + (first_row + i / plan.group) * q_row + q_offset +
                                                      static_cast<int64_t>(i % plan.group) * op.head_dim,
                                                  op.scale * 1.44269504f, op.head_dim, format,
                                                  q + static_cast<int64_t>(i) * QueryStride(op.head_dim));
  }
  if (plan.cut_keys) {
    AttendSplits(op, plan, item, scratch, partials_.as<float>() + item.partial * plan.state_floats, nullptr);
    return;
  }
  for (int row = 0; row < query_rows; ++row) {
    float* state = scratch.merged + row * plan.state_floats;
    std::fill(state, state + plan.state_floats, 0.0f);
    state[0] = -std::numeric_limits<float>::infinity();
  }
  AttendSplits(op, plan, item, scratch, scratch.states, scratch.merged);
  for (int row = 0; row < query_rows; ++row) {
    kernels_.finish_state(scratch.merged + row * plan.state_floats, op.head_dim,
                          op.out + (first_row + row / plan.group) * q_row + q_offset +
                              static_cast<int64_t>(row % plan.group) * op.head_dim);
  }
}

void OpRunner::MergePartials(const AttentionOp& op, const AttentionPlan& plan, int thread, Items& items) {
  AttentionScratch scratch = {};
  LayOut(attention_heads_, attention_head_dim_, scratch_[static_cast<size_t>(thread)].attention.as<float>(),
         &scratch);
  float* merged = scratch.merged;
  int64_t index = 0;
  int64_t wanted = items.Next();
  const float* partial = partials_.as<float>();
  for (const AttentionSequence& sequence : op.sequences) {
    const int splits = SplitsOf(op, sequence);
    // States of one KV head and split.
    const int64_t states = int64_t{sequence.row_count} * plan.group;
    for (int kv_head = 0; kv_head < op.kv_heads; ++kv_head) {
      const int used = sequence.sparse == nullptr
                           ? splits
                           : ListedKeys(*sequence.sparse, kv_head, sequence.position_begin).splits();
      for (int64_t i = 0; i < states; ++i, ++index) {
        if (index / kMergeStates > wanted) wanted = items.Next();
        if (index / kMergeStates != wanted) continue;
        std::fill(merged, merged + plan.state_floats, 0.0f);
        merged[0] = -std::numeric_limits<float>::infinity();
        for (int split = 0; split < used; ++split) {
          kernels_.merge_state(partial + (split * states + i) * plan.state_floats, op.head_dim, merged);
        }
        const int64_t row = sequence.row_begin + i / plan.group;
        const int64_t head = int64_t{kv_head} * plan.group + i % plan.group;
        kernels_.finish_state(merged, op.head_dim, op.out + (row * op.heads + head) * op.head_dim);
      }
      partial += splits * states * plan.state_floats;
    }
  }
}

}  // namespace mnemo::devices::cpu
