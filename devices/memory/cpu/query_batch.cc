#include "devices/memory/cpu/query_batch.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "devices/memory/cpu/query_batch_parts.h"

namespace mnemo::memory_device::cpu {
namespace {

using layout::Descriptor;

// A round's scores are divided into kPartsOfThread parts for each thread, and one more for each block. The
// first cache lines of a part are not prefetched: with one layer of eight sequences, 64 parts took a sixth
// longer than 16. A part has kLeastPages to kMostPages pages of one head. The upper bound exists because
// queries of a group past the first four read the pages again, from the second-level cache.
constexpr uint32_t kPartsOfThread = 8;
constexpr uint32_t kLeastPages = 48;
constexpr uint32_t kMostPages = 256;
// Bound on the bytes of a page's heads that are scored together. Memory delivers longer stretches faster, but
// the heads' queries must stay in the first-level cache beside them.
constexpr uint64_t kBytesTogether = 6144;

uint64_t Padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

uint32_t Nanoseconds(std::chrono::steady_clock::duration took) {
  return static_cast<uint32_t>(
      std::min<int64_t>(std::chrono::nanoseconds(took).count(), std::numeric_limits<uint32_t>::max()));
}

uint32_t SaturatedSum(uint32_t a, uint32_t b) { return a > UINT32_MAX - b ? UINT32_MAX : a + b; }

// Bytes of the best scores, one for every 64 entries.
uint64_t BestBytes(uint64_t padded) { return Padded(padded / 64) * sizeof(int16_t); }

// Bytes of the ids that pass the first stage of a cascade. Kernels may read 64 ids past the end and write 16.
uint64_t PassedBytes(const Descriptor& d, uint64_t padded) {
  return Padded((std::min<uint64_t>(d.k1, padded) + 64) * sizeof(uint32_t));
}

// Bytes of the scores, ranks, passed ids and best scores of one block.
uint64_t ScratchBytes(const Descriptor& d, uint64_t padded) {
  return Padded(d.group * padded * sizeof(int16_t)) + (HasShortRanks(d) ? 0 : padded * sizeof(int32_t)) +
         (d.k1 != 0 ? PassedBytes(d, padded) : 0) + (IsFewOfMany(d, padded) ? BestBytes(padded) : 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<QueryBatch>> QueryBatch::Create(const QueryBatchLimits& limits) {
  std::unique_ptr<QueryBatch> batch(new QueryBatch(limits));
  if (batch->kernels_ == nullptr) {
    return InvalidArgument("isa '{}' is not one that this machine can run", limits.isa);
  }
  return batch;
}

QueryBatch::QueryBatch(const QueryBatchLimits& limits)
    : limits_(limits),
      parts_(kPartsOfThread * static_cast<uint32_t>(limits.threads)),
      kernels_(devices::cpu::FindIndexKernels(limits.isa.c_str())) {
  Descriptor largest{};
  largest.group = static_cast<uint8_t>(std::min<uint32_t>(limits.max_group, layout::kMaxGroup));
  largest.k1 = UINT32_MAX;
  // A scan may begin and end within a page.
  const uint64_t padded = Padded(limits.max_tokens) + uint64_t{2} * layout::kPageTokens;
  scores_bytes_ = Padded(std::max(limits.scratch_bytes, ScratchBytes(largest, padded) + BestBytes(padded)));
  scores_ = static_cast<uint8_t*>(std::aligned_alloc(64, scores_bytes_));
  MNEMO_CHECK(scores_ != nullptr);
  taken_.reserve(limits.max_operations);
  blocks_.reserve(limits.max_blocks);
  // At worst each block is a round: four phases, two of them of scores.
  phases_.reserve(size_t{4} * limits.max_blocks);
  const uint64_t parts = std::max<uint64_t>(parts_, padded / layout::kPageTokens / kMostPages + 1);
  items_.reserve(size_t{limits.max_blocks} * (2 * (parts + 1) + 2));
  for (int i = 0; i < limits.threads; ++i) {
    auto scratch = std::make_unique<Scratch>();
    // Collecting may write 16 past the end; a cascade's first stage passes up to all entries.
    scratch->ids.resize(padded + 16);
    scratch->ranks.resize(limits.max_k);
    scratch->other_ids.resize(limits.max_k);
    scratch->other_ranks.resize(limits.max_k);
    scratch->bins.resize(4096);
    scratch->short_ranks.resize(padded + 32);
    scratch->parts.resize(Padded(padded / 64) + 16);
    scratch->sums.resize(layout::kMaxDim);
    scratch_.push_back(std::move(scratch));
  }
}

QueryBatch::~QueryBatch() { std::free(scores_); }

size_t QueryBatch::Begin(std::span<const Operation> operations, const CpuRecordMemory& memory) {
  taken_.clear();
  blocks_.clear();
  phases_.clear();
  items_.clear();
  for (const Operation& operation : operations) {
    if (!Take(operation, memory)) {
      break;
    }
  }
  Plan();
  return taken_.size();
}

bool QueryBatch::Take(const Operation& operation, const CpuRecordMemory& memory) {
  if (taken_.size() == limits_.max_operations) {
    return false;
  }
  const Descriptor& d = operation.descriptor;
  Taken taken;
  taken.descriptor = d;
  taken.payload = operation.payload;
  taken.result = operation.result;
  taken.index = memory.Find({operation.owner, d.index_id});
  taken.first_block = static_cast<uint32_t>(blocks_.size());
  const uint32_t blocks = d.heads * (d.op == layout::kOpGather ? 1U : d.queries);
  const auto refuse = [&](uint16_t status, size_t field) {
    taken.status = status;
    taken.detail = static_cast<uint16_t>(field);
  };
  if (taken.index == nullptr) {
    refuse(layout::kStatusUnknownIndex, offsetof(Descriptor, index_id));
  } else if (taken.index->generation != d.index_generation) {
    refuse(layout::kStatusStaleGeneration, offsetof(Descriptor, index_generation));
  } else if (d.layer_slot >= taken.index->at.spec.layer_slots) {
    refuse(layout::kStatusBadField, offsetof(Descriptor, layer_slot));
  } else if (d.first_head + d.heads > taken.index->at.spec.heads) {
    refuse(layout::kStatusBadField, offsetof(Descriptor, heads));
  } else if (IsScored(d) && d.format != taken.index->at.spec.record_format) {
    refuse(layout::kStatusBadField, offsetof(Descriptor, format));
  } else if (d.op != layout::kOpGather &&
             (d.begin > d.end || d.end > taken.index->tokens[d.layer_slot] ||
              (d.op == layout::kOpScoreGather && d.end > taken.index->kv_tokens[d.layer_slot]))) {
    refuse(layout::kStatusBadField, offsetof(Descriptor, end));
  } else if (d.end - d.begin > limits_.max_tokens) {
    refuse(layout::kStatusUnsupported, offsetof(Descriptor, end));
  } else if (d.k > limits_.max_k) {
    refuse(layout::kStatusUnsupported, offsetof(Descriptor, k));
  } else if (d.group > std::min<uint32_t>(limits_.max_group, layout::kMaxGroup)) {
    refuse(layout::kStatusUnsupported, offsetof(Descriptor, group));
  } else if (blocks > limits_.max_blocks) {
    refuse(layout::kStatusUnsupported, offsetof(Descriptor, heads));
  } else if (blocks > limits_.max_blocks - blocks_.size()) {
    return false;
  } else {
    taken.blocks = blocks;
  }
  taken_.push_back(taken);
  AddBlocks(static_cast<uint32_t>(taken_.size() - 1));
  return true;
}

void QueryBatch::AddBlocks(uint32_t operation) {
  const Taken& taken = taken_[operation];
  const Descriptor& d = taken.descriptor;
  for (uint32_t n = 0; n < taken.blocks; ++n) {
    Block block;
    block.operation = operation;
    block.head = d.first_head + n % d.heads;
    block.position = n;
    if (d.op != layout::kOpGather) {
      const uint32_t entry_tokens = layout::EntryTokens(taken.index->at.spec.record_format, d.flags);
      block.entries_per_page = layout::kPageTokens / entry_tokens;
      block.first_page = d.begin / layout::kPageTokens;
      block.page_count =
          d.begin == d.end ? 0 : (d.end + layout::kPageTokens - 1) / layout::kPageTokens - block.first_page;
      // An empty scan has no page, and so no entries to skip.
      block.skip = block.page_count == 0 ? 0 : d.begin / entry_tokens - block.first_id();
      block.entries = d.end / entry_tokens - d.begin / entry_tokens;
      block.padded = static_cast<uint32_t>(Padded(uint64_t{block.page_count} * block.entries_per_page));
    }
    blocks_.push_back(block);
  }
}

// Assigns the scratch to blocks in rounds: each round has as many blocks as the scratch holds.
void QueryBatch::Plan() {
  uint64_t used = 0;
  uint32_t first = 0;
  for (uint32_t b = 0; b < blocks_.size(); ++b) {
    Block& block = blocks_[b];
    const Descriptor& d = taken_[block.operation].descriptor;
    if (!IsScored(d)) {
      continue;
    }
    const uint64_t bytes = ScratchBytes(d, block.padded);
    if (used + bytes > scores_bytes_) {
      PlanRound(first, b);
      first = b;
      used = 0;
    }
    uint8_t* at = scores_ + used;
    block.scores = reinterpret_cast<int16_t*>(at);
    at += Padded(uint64_t{d.group} * block.padded * sizeof(int16_t));
    if (!HasShortRanks(d)) {
      block.ranks = reinterpret_cast<int32_t*>(at);
      at += block.padded * sizeof(int32_t);
    }
    block.passed = reinterpret_cast<uint32_t*>(at);
    block.best_of_64 = IsFewOfMany(d, block.padded) ? reinterpret_cast<int16_t*>(at) : nullptr;
    used += bytes;
  }
  PlanRound(first, static_cast<uint32_t>(blocks_.size()));
}

void QueryBatch::PlanRound(uint32_t first, uint32_t end) {
  AddPhase(Kind::kScore, false, first, end);
  AddPhase(Kind::kSelect, false, first, end);
  AddPhase(Kind::kScore, true, first, end);
  AddPhase(Kind::kSelect, true, first, end);
}

void QueryBatch::AddPhase(Kind kind, bool second, uint32_t first, uint32_t end) {
  const auto takes_part = [&](const Block& block) {
    const Descriptor& d = taken_[block.operation].descriptor;
    return (!second || d.k1 != 0) && (kind == Kind::kSelect || IsScored(d));
  };
  uint64_t pages = 0;
  for (uint32_t b = first; b < end; ++b) {
    pages += takes_part(blocks_[b]) ? blocks_[b].page_count : 0;
  }
  const auto part =
      static_cast<uint32_t>(std::clamp<uint64_t>((pages + parts_ - 1) / parts_, kLeastPages, kMostPages));
  Phase phase{kind, second, static_cast<uint32_t>(items_.size()), 0};
  for (uint32_t b = first; b < end;) {
    uint32_t blocks = 1;
    if (takes_part(blocks_[b]) && kind == Kind::kSelect) {
      items_.push_back({b, blocks, 0, 0, 0, 0, 0});
    } else if (takes_part(blocks_[b])) {
      blocks = second ? 1 : HeadsTogether(b, end);  // the passed entries differ between heads
      const uint32_t step = (part + blocks - 1) / blocks;
      for (uint32_t page = 0; page < blocks_[b].page_count; page += step) {
        items_.push_back({b, blocks, page, std::min(step, blocks_[b].page_count - page), 0, 0, 0});
      }
    }
    b += blocks;
  }
  phase.count = static_cast<uint32_t>(items_.size()) - phase.first_item;
  if (phase.count != 0) {
    phases_.push_back(phase);
  }
}

// Number of blocks from `first` on that one item scores: an equal share of the heads left at its position.
uint32_t QueryBatch::HeadsTogether(uint32_t first, uint32_t end) const {
  const Taken& taken = taken_[blocks_[first].operation];
  const uint32_t heads = taken.descriptor.heads;
  const uint32_t left = std::min(heads - (first - taken.first_block) % heads, end - first);
  const uint64_t bytes = taken.index->at.block_bytes;
  const auto most = static_cast<uint32_t>(
      std::min<uint64_t>((kBytesTogether + bytes - 1) / bytes, devices::cpu::kMostScoreHeads));
  const uint32_t parts = (left + most - 1) / most;
  return (left + parts - 1) / parts;
}

void QueryBatch::RunItem(int phase, uint32_t number, int thread) {
  if (phase >= phases() || number >= items(phase)) {
    return;
  }
  const Phase& of = phases_[static_cast<size_t>(phase)];
  Item& item = items_[of.first_item + number];
  Block& block = blocks_[item.block];
  const auto start = std::chrono::steady_clock::now();
  if (of.kind == Kind::kScore) {
    RunScore(of.second, item);
    item.score_ns = Nanoseconds(std::chrono::steady_clock::now() - start);
    return;
  }
  RunSelect(block, of.second, item, *scratch_[static_cast<size_t>(thread)]);
  const uint32_t took = Nanoseconds(std::chrono::steady_clock::now() - start);
  // The first stage of a cascade precedes the last score, so it counts as scoring.
  const bool before_last = !of.second && taken_[block.operation].descriptor.k1 != 0;
  (before_last ? item.score_ns : item.select_ns) = took - std::min(took, item.gather_ns);
}

void QueryBatch::RunScore(bool second, const Item& item) {
  const Block& block = blocks_[item.block];
  const Taken& taken = taken_[block.operation];
  const Descriptor& d = taken.descriptor;
  const ResidentIndex& index = *taken.index;
  const uint32_t dim = index.at.spec.dim;
  const uint64_t query_bytes = layout::QueryBlockBytes(d.group, dim);
  const uint8_t* payload = taken.payload + block.position * query_bytes;
  devices::cpu::QueryParams params[devices::cpu::kMostScoreHeads * layout::kMaxGroup];
  for (uint32_t n = 0; n < item.blocks * d.group; ++n) {
    layout::QueryParam param;
    std::memcpy(&param,
                payload + n / d.group * query_bytes + layout::QueryParamOffset(d.group, dim) +
                    n % d.group * sizeof(param),
                sizeof(param));
    params[n] = {param.multiplier, param.shift};
  }
  devices::cpu::ScoreTask task;
  task.pages = index.pages.data() + block.first_page + item.page;
  task.block_offset = index.at.BlockOffset(d.layer_slot, block.head);
  task.page_count = item.page_count;
  task.heads = item.blocks;
  task.format = index.at.spec.record_format;
  task.dim = dim;
  task.sign_stage = d.k1 != 0 && !second;
  task.whole_pages = (d.flags & layout::kFlagPages64) != 0;
  task.group = d.group;
  task.codes = reinterpret_cast<const int8_t*>(payload);
  task.code_stride = query_bytes;
  task.params = params;
  task.scores = block.scores + size_t{item.page} * block.entries_per_page;
  task.score_stride = block.padded;
  task.head_stride =
      item.blocks == 1 ? 0 : static_cast<size_t>(blocks_[item.block + 1].scores - block.scores);
  if (second) {  // only the passed entries of the item's pages
    const uint32_t first = (block.first_page + item.page) * layout::kPageTokens;
    const uint32_t* const end = block.passed + block.passed_count;
    const uint32_t* const begin = std::lower_bound(static_cast<const uint32_t*>(block.passed), end, first);
    task.pages = index.pages.data();
    task.listed = begin;
    task.listed_count = static_cast<uint32_t>(
        std::lower_bound(begin, end, first + item.page_count * layout::kPageTokens) - begin);
    task.scores = block.scores + (begin - block.passed);
  }
  kernels_->score(task);
  for (uint32_t b = item.block; b < item.block + item.blocks; ++b) {
    if (blocks_[b].best_of_64 != nullptr && block.entries_per_page == layout::kPageTokens) {
      kernels_->largest_of_each(task.scores + (b - item.block) * task.head_stride,
                                size_t{item.page_count} * layout::kPageTokens,
                                blocks_[b].best_of_64 + item.page);
    }
  }
}

void QueryBatch::Finish(std::span<layout::Completion> completions) {
  for (size_t n = 0; n < taken_.size(); ++n) {
    const Taken& taken = taken_[n];
    layout::Completion& answer = completions[n];
    answer = {};
    answer.index_id = taken.descriptor.index_id;
    answer.energy_uj = layout::kEnergyUnknown;
    answer.status = taken.status;
    answer.detail = taken.detail;
    answer.seq = taken.descriptor.seq;
    if (taken.status != layout::kStatusOk) {
      continue;
    }
    answer.watermark = taken.index->tokens[taken.descriptor.layer_slot];
    for (uint32_t b = taken.first_block; b < taken.first_block + taken.blocks; ++b) {
      const Block& block = blocks_[b];
      answer.count += block.count;
      answer.bytes_read += block.bytes_read;
      answer.bytes_written += block.bytes_written;
      if (answer.status == layout::kStatusOk) {
        answer.status = block.status;
        answer.detail = block.detail;
      }
    }
  }
  for (const Item& item : items_) {
    layout::Completion& answer = completions[blocks_[item.block].operation];
    answer.score_ns = SaturatedSum(answer.score_ns, item.score_ns);
    answer.select_ns = SaturatedSum(answer.select_ns, item.select_ns);
    answer.gather_ns = SaturatedSum(answer.gather_ns, item.gather_ns);
  }
}

void QueryBatch::RunAll(std::span<const Operation> operations, const CpuRecordMemory& memory,
                        std::span<layout::Completion> completions) {
  for (size_t done = 0; done < operations.size();) {
    const size_t taken = Begin(operations.subspan(done), memory);
    for (int phase = 0; phase < phases(); ++phase) {
      for (uint32_t item = 0; item < items(phase); ++item) {
        RunItem(phase, item, 0);
      }
    }
    Finish(completions.subspan(done, taken));
    done += taken;
  }
}

}  // namespace mnemo::memory_device::cpu
