#include "devices/memory/index_table.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

namespace mnemo::memory_device {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

// Number of pages of records in use: the greatest of all slots.
uint32_t PagesInUse(const Index& index) {
  return *std::max_element(index.tokens.begin(), index.tokens.end()) / kPageTokens;
}

uint32_t Least(const std::vector<uint32_t>& counts) {
  return *std::min_element(counts.begin(), counts.end());
}

}  // namespace

// Bytes of records and of K and V.
struct IndexTable::Bytes {
  uint64_t records = 0;
  uint64_t values = 0;
};

// Buffers of one thread that runs items of appends.
struct IndexTable::Scratch {
  alignas(64) float keys[size_t{kPageTokens} * layout::kMaxDim];
  alignas(64) uint8_t record[layout::RecordBytes(layout::kFormatCodes8, layout::kMaxDim)];
};

void AppendJob::RunItem(uint32_t item, int thread) {
  if (item >= items_) {
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  const layout::IndexSpec& spec = index_->at.spec;
  const uint32_t head = item % spec.heads;
  const uint32_t slot = first_slot_ + item / spec.heads % slots_;
  const uint32_t page = first_page_ + item / spec.heads / slots_;
  IndexTable::Scratch& scratch = *table_->scratch_[static_cast<size_t>(thread)];
  layout::PageKeys keys;
  if (source_.get != nullptr) {
    keys = source_.get(source_.context, page, slot, head, scratch.keys);
  } else {
    const uint64_t row_bytes = uint64_t{spec.dim} * layout::ValueBytes(descriptor_.format);
    const uint64_t tokens = descriptor_.end - descriptor_.begin;
    const uint64_t row = (uint64_t{slot - first_slot_} * spec.heads + head) * tokens +
                         uint64_t{page - first_page_} * kPageTokens;
    keys = {payload_ + row * row_bytes, row_bytes, descriptor_.format};
  }
  const uint32_t record_bytes = layout::RecordBytes(spec.record_format, spec.dim);
  table_->kernels_->make_record(keys.data, keys.row_stride_bytes, keys.value_type, spec.dim,
                                spec.record_format, scratch.record, record_bytes);
  table_->layout_.store_block(scratch.record, spec.record_format, spec.dim,
                              staged_[page - first_page_] + index_->at.BlockOffset(slot - first_slot_, head));
  const auto took = std::chrono::steady_clock::now() - start;
  prepare_ns_.fetch_add(static_cast<uint64_t>(std::chrono::nanoseconds(took).count()),
                        std::memory_order_relaxed);
}

absl::StatusOr<std::unique_ptr<IndexTable>> IndexTable::Create(const Options& options, RecordMemory* memory) {
  std::unique_ptr<IndexTable> table(new IndexTable(options, memory));
  if (table->kernels_ == nullptr) {
    return InvalidArgument("isa '{}' is not one that this machine can run", options.isa);
  }
  return table;
}

IndexTable::IndexTable(const Options& options, RecordMemory* memory)
    : options_(options),
      kernels_(devices::cpu::FindIndexKernels(options.isa.c_str())),
      memory_(memory),
      layout_(memory->layout()),
      owners_(options.max_owners) {
  for (int i = 0; i < options.threads; ++i) {
    scratch_.push_back(std::make_unique<Scratch>());
  }
}

IndexTable::~IndexTable() {
  for (uint32_t owner = 0; owner < owners_.size(); ++owner) {
    if (owners_[owner].used) {
      RemoveOwner(owner);
    }
  }
}

absl::StatusOr<uint32_t> IndexTable::AddOwner(const OwnerLimits& limits) {
  const auto free = std::find_if(owners_.begin(), owners_.end(), [](const Owner& o) { return !o.used; });
  if (free == owners_.end()) {
    return ResourceExhausted("owners: {} are there, the bound", owners_.size());
  }
  if (limits.quota_bytes > options_.capacity_bytes - granted_bytes_) {
    return ResourceExhausted("quota_bytes: {} asked for, {} of {} are left", limits.quota_bytes,
                             options_.capacity_bytes - granted_bytes_, options_.capacity_bytes);
  }
  granted_bytes_ += limits.quota_bytes;
  free->used = true;
  free->limits = limits;
  free->stats = {.quota_bytes = limits.quota_bytes};
  free->indexes.resize(limits.max_indexes);
  return static_cast<uint32_t>(free - owners_.begin());
}

void IndexTable::RemoveOwner(uint32_t number) {
  Owner& owner = OwnerOf(number);
  for (uint32_t id = 0; id < owner.indexes.size(); ++id) {
    if (owner.indexes[id] != nullptr) {
      FreeIndex(owner, {number, id});
    }
  }
  MNEMO_CHECK(owner.stats.reserved_bytes == 0 && owner.stats.held_bytes == 0 && owner.stats.extents == 0);
  granted_bytes_ -= owner.limits.quota_bytes;
  owner = Owner();
}

void IndexTable::Forget() {
  references_.clear();
  for (Owner& owner : owners_) {
    for (std::unique_ptr<Index>& index : owner.indexes) {
      index.reset();
    }
    owner.stats = {.quota_bytes = owner.limits.quota_bytes};
  }
  record_bytes_ = 0;
}

void IndexTable::Unhold(uint32_t owner, uint32_t index_id) {
  Index& index = IndexOf(owner, index_id);
  MNEMO_CHECK(index.held > 0);
  --index.held;
}

bool IndexTable::MustWait(uint32_t owner, const Descriptor& descriptor) const {
  const Index* index = Find(owner, descriptor.index_id);
  if (index == nullptr || index->held == 0) {
    return false;
  }
  switch (descriptor.op) {
    case layout::kOpTruncate:
    case layout::kOpFree:
      return true;
    case layout::kOpKvStore:
      return descriptor.begin < *std::max_element(index->kv_tokens.begin(), index->kv_tokens.end());
    default:
      return false;
  }
}

IndexTable::Owner& IndexTable::OwnerOf(uint32_t owner) {
  MNEMO_CHECK(owner < owners_.size() && owners_[owner].used);
  return owners_[owner];
}

const IndexTable::Owner& IndexTable::OwnerOf(uint32_t owner) const {
  MNEMO_CHECK(owner < owners_.size() && owners_[owner].used);
  return owners_[owner];
}

const Index* IndexTable::Find(uint32_t owner, uint32_t index_id) const {
  if (owner >= owners_.size() || index_id >= owners_[owner].indexes.size()) {
    return nullptr;
  }
  return owners_[owner].indexes[index_id].get();
}

Index& IndexTable::IndexOf(uint32_t owner, uint32_t index_id) {
  Owner& of = OwnerOf(owner);
  MNEMO_CHECK(index_id < of.indexes.size() && of.indexes[index_id] != nullptr);
  return *of.indexes[index_id];
}

layout::IndexInfo IndexTable::Info(uint32_t owner, uint32_t index_id, uint32_t layer_slot) const {
  layout::IndexInfo info;
  const Index* index = Find(owner, index_id);
  if (index == nullptr) {
    return info;
  }
  info.exists = true;
  info.generation = index->generation;
  const layout::IndexSpec& spec = index->at.spec;
  info.layer_slots = spec.layer_slots;
  info.heads = spec.heads;
  info.dim = spec.dim;
  info.record_format = spec.record_format;
  info.kv_format = spec.kv_format;
  info.max_tokens = spec.max_tokens;
  const bool one = layer_slot < spec.layer_slots;
  info.tokens = one ? index->tokens[layer_slot] : Least(index->tokens);
  info.kv_tokens = one ? index->kv_tokens[layer_slot] : Least(index->kv_tokens);
  return info;
}

OwnerUsage IndexTable::Stats(uint32_t owner) const { return OwnerOf(owner).stats; }

uint64_t IndexTable::BytesFor(const layout::IndexSpec& spec, uint32_t tokens) const {
  const ExtentLayout at{spec, layout_.block_bytes(spec.record_format, spec.dim)};
  return (uint64_t{tokens} + kPageTokens - 1) / kPageTokens * (at.RecordBytes() + at.ValueBytes());
}

Completion IndexTable::Answer(const Descriptor& descriptor, uint16_t status, const Index* index) {
  Completion answer{};
  answer.index_id = descriptor.index_id;
  answer.energy_uj = layout::kEnergyUnknown;
  answer.status = status;
  answer.detail = layout::kNoDetail;
  answer.seq = descriptor.seq;
  if (index != nullptr) {
    const bool grows = descriptor.op == layout::kOpAppend || descriptor.op == layout::kOpKvStore;
    const std::vector<uint32_t>& counts =
        descriptor.op == layout::kOpKvStore ? index->kv_tokens : index->tokens;
    answer.watermark = grows && descriptor.layer_slot != layout::kAllLayerSlots
                           ? counts[descriptor.layer_slot]
                           : Least(counts);
    answer.count = grows ? descriptor.end - descriptor.begin : answer.watermark;
  }
  return answer;
}

Extent IndexTable::NewExtent(Owner& owner, ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) {
  const Extent extent = memory_->Allocate(kind, key, page, bytes);
  if (extent == kNoExtent) {
    return extent;
  }
  if (extent >= references_.size()) {
    references_.resize(size_t{extent} + 1);
  }
  MNEMO_CHECK(references_[extent] == 0);
  references_[extent] = 1;
  owner.stats.held_bytes += bytes;
  ++owner.stats.extents;
  return extent;
}

void IndexTable::DropExtent(Owner& owner, ExtentKind kind, Extent extent, uint64_t bytes) {
  if (--references_[extent] == 0) {
    memory_->Release(extent);
    owner.stats.held_bytes -= bytes;
    --owner.stats.extents;
    Unreserve(owner, kind == ExtentKind::kRecords ? Bytes{.records = bytes} : Bytes{.values = bytes});
  }
}

IndexTable::Bytes IndexTable::Unwritten(const Index& index) {
  const uint64_t pages = index.at.spec.max_tokens / kPageTokens;
  return {.records = (pages - index.pages.size()) * index.extent_bytes,
          .values = (pages - index.kv_pages.size()) * index.kv_extent_bytes};
}

bool IndexTable::HasRoom(const Owner& owner, const Bytes& bytes) const {
  const uint64_t capacity = memory_->record_capacity_bytes();
  return bytes.records + bytes.values <= owner.limits.quota_bytes - owner.stats.reserved_bytes &&
         (bytes.records == 0 || (record_bytes_ <= capacity && bytes.records <= capacity - record_bytes_));
}

void IndexTable::Reserve(Owner& owner, const Bytes& bytes) {
  owner.stats.reserved_bytes += bytes.records + bytes.values;
  record_bytes_ += bytes.records;
}

void IndexTable::Unreserve(Owner& owner, const Bytes& bytes) {
  owner.stats.reserved_bytes -= bytes.records + bytes.values;
  record_bytes_ -= bytes.records;
}

void IndexTable::DropPages(Owner& owner, Index& index, uint32_t from_page, uint32_t from_kv_page) {
  Unreserve(owner, Unwritten(index));
  for (; index.pages.size() > from_page; index.pages.pop_back()) {
    DropExtent(owner, ExtentKind::kRecords, index.pages.back(), index.extent_bytes);
  }
  for (; index.kv_pages.size() > from_kv_page; index.kv_pages.pop_back()) {
    DropExtent(owner, ExtentKind::kValues, index.kv_pages.back(), index.kv_extent_bytes);
  }
  Reserve(owner, Unwritten(index));
}

std::unique_ptr<Index> IndexTable::NewIndex(const layout::IndexSpec& spec, uint16_t generation) const {
  auto index = std::make_unique<Index>();
  index->at = {spec, layout_.block_bytes(spec.record_format, spec.dim)};
  index->generation = generation;
  index->extent_bytes = index->at.RecordBytes();
  index->kv_extent_bytes = index->at.ValueBytes();
  index->pages.reserve(spec.max_tokens / kPageTokens);
  index->kv_pages.reserve(index->kv_extent_bytes != 0 ? spec.max_tokens / kPageTokens : 0);
  index->tokens.resize(spec.layer_slots);
  index->kv_tokens.resize(spec.layer_slots);
  return index;
}

void IndexTable::FreeIndex(Owner& owner, IndexKey key) {
  Index& index = *owner.indexes[key.index_id];
  MNEMO_CHECK(!index.changing && index.held == 0);
  memory_->CloseIndex(key);
  DropPages(owner, index, 0, 0);
  Unreserve(owner, Unwritten(index));
  --owner.stats.indexes;
  owner.indexes[key.index_id].reset();
}

Completion IndexTable::Create(uint32_t number, const Descriptor& descriptor, const layout::IndexSpec& spec) {
  Owner& owner = OwnerOf(number);
  MNEMO_CHECK(descriptor.index_id < owner.indexes.size() && owner.indexes[descriptor.index_id] == nullptr);
  if (draining_) {
    return Answer(descriptor, layout::kStatusDraining, nullptr);
  }
  std::unique_ptr<Index> fresh = NewIndex(spec, descriptor.index_generation);
  if (!HasRoom(owner, Unwritten(*fresh))) {
    return Answer(descriptor, layout::kStatusFull, nullptr);
  }
  std::unique_ptr<Index>& index = owner.indexes[descriptor.index_id];
  index = std::move(fresh);
  Reserve(owner, Unwritten(*index));
  ++owner.stats.indexes;
  memory_->OpenIndex({number, descriptor.index_id}, index->generation, spec, nullptr);
  return Answer(descriptor, layout::kStatusOk, index.get());
}

Completion IndexTable::Fork(uint32_t number, const Descriptor& descriptor) {
  Owner& owner = OwnerOf(number);
  const Index& source = IndexOf(number, descriptor.k1);
  MNEMO_CHECK(descriptor.end <= Least(source.tokens));
  const uint32_t shared = descriptor.end / kPageTokens;
  // Pages of K and V that are not full are not shared, since both indexes may still write to them.
  const uint32_t kv_shared = std::min(descriptor.end, Least(source.kv_tokens)) / kPageTokens;
  const uint64_t pages = source.at.spec.max_tokens / kPageTokens;
  if (draining_ || !HasRoom(owner, {.records = (pages - shared) * source.extent_bytes,
                                    .values = (pages - kv_shared) * source.kv_extent_bytes})) {
    return Answer(descriptor, draining_ ? layout::kStatusDraining : layout::kStatusFull, nullptr);
  }
  std::unique_ptr<Index>& index = owner.indexes[descriptor.index_id];
  MNEMO_CHECK(descriptor.index_id < owner.indexes.size() && index == nullptr);
  index = NewIndex(source.at.spec, descriptor.index_generation);
  index->pages.assign(source.pages.begin(), source.pages.begin() + shared);
  if (source.kv_extent_bytes != 0) {
    index->kv_pages.assign(source.kv_pages.begin(), source.kv_pages.begin() + kv_shared);
  }
  for (const std::vector<Extent>* extents : {&index->pages, &index->kv_pages}) {
    for (const Extent extent : *extents) {
      ++references_[extent];
    }
  }
  std::fill(index->tokens.begin(), index->tokens.end(), descriptor.end);
  std::fill(index->kv_tokens.begin(), index->kv_tokens.end(), kv_shared * kPageTokens);
  Reserve(owner, Unwritten(*index));
  ++owner.stats.indexes;
  const IndexKey key{number, descriptor.index_id};
  const IndexKey from{number, descriptor.k1};
  memory_->OpenIndex(key, index->generation, index->at.spec, &from);
  memory_->PublishPages(key, ExtentKind::kRecords, 0, index->pages);
  memory_->PublishPages(key, ExtentKind::kValues, 0, index->kv_pages);
  memory_->PublishTokens(key, ExtentKind::kRecords, 0, index->tokens);
  memory_->PublishTokens(key, ExtentKind::kValues, 0, index->kv_tokens);
  return Answer(descriptor, layout::kStatusOk, index.get());
}

Completion IndexTable::Truncate(uint32_t number, const Descriptor& descriptor) {
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(!index.changing && index.held == 0);
  const uint32_t pages = descriptor.end / kPageTokens;
  // Bytes of shared pages: other indexes keep them, and this index may allocate them again.
  Bytes stay;
  for (uint32_t p = pages; p < index.pages.size(); ++p) {
    stay.records += references_[index.pages[p]] > 1 ? index.extent_bytes : 0;
  }
  for (uint32_t p = pages; p < index.kv_pages.size(); ++p) {
    stay.values += references_[index.kv_pages[p]] > 1 ? index.kv_extent_bytes : 0;
  }
  if (!HasRoom(owner, stay)) {
    return Answer(descriptor, layout::kStatusFull, &index);
  }
  for (uint32_t& tokens : index.tokens) {
    tokens = std::min(tokens, descriptor.end);
  }
  for (uint32_t& tokens : index.kv_tokens) {
    tokens = std::min(tokens, descriptor.end);
  }
  const IndexKey key{number, descriptor.index_id};
  memory_->PublishTokens(key, ExtentKind::kRecords, 0, index.tokens);
  memory_->PublishTokens(key, ExtentKind::kValues, 0, index.kv_tokens);
  if (pages < index.pages.size()) {
    memory_->PublishPages(key, ExtentKind::kRecords, pages, {});
  }
  if (pages < index.kv_pages.size()) {
    memory_->PublishPages(key, ExtentKind::kValues, pages, {});
  }
  DropPages(owner, index, pages, pages);
  return Answer(descriptor, layout::kStatusOk, &index);
}

Completion IndexTable::Free(uint32_t number, const Descriptor& descriptor) {
  IndexOf(number, descriptor.index_id);
  FreeIndex(OwnerOf(number), {number, descriptor.index_id});
  return Answer(descriptor, layout::kStatusOk, nullptr);
}

// Copies shared pages before a store writes to them. Returns false when there is no memory.
bool IndexTable::NewValuePages(Owner& owner, KvStoreJob* job) {
  Index& index = *job->index_;
  const IndexKey key{job->owner_, job->descriptor_.index_id};
  const uint32_t old_count = job->old_pages_;
  const uint32_t end_page = (job->descriptor_.end + kPageTokens - 1) / kPageTokens;
  for (uint32_t p = job->descriptor_.begin / kPageTokens; p < end_page; ++p) {
    if (p < old_count && references_[index.kv_pages[p]] == 1) {
      continue;
    }
    const Extent extent = NewExtent(owner, ExtentKind::kValues, key, p, index.kv_extent_bytes);
    if (extent == kNoExtent) {
      return false;
    }
    if (p >= old_count) {
      index.kv_pages.push_back(extent);
      continue;
    }
    job->first_changed_ = std::min(job->first_changed_, p);
    job->replaced_.push_back({p, index.kv_pages[p]});
    job->ticket_ = memory_->Copy(index.kv_pages[p], extent);
    index.kv_pages[p] = extent;
    Reserve(owner, {.values = index.kv_extent_bytes});
  }
  return true;
}

void IndexTable::UndoValuePages(KvStoreJob* job) {
  Owner& owner = OwnerOf(job->owner_);
  Index& index = *job->index_;
  for (const KvStoreJob::Replaced& one : job->replaced_) {
    DropExtent(owner, ExtentKind::kValues, std::exchange(index.kv_pages[one.page], one.extent),
               index.kv_extent_bytes);
  }
  DropPages(owner, index, UINT32_MAX, job->old_pages_);
  job->index_ = nullptr;
}

// Calls range(extent, offset, bytes) for each page, slot and head of a store, in the order of its payload,
// until a call returns false.
template <typename Range>
bool IndexTable::ForRanges(const KvStoreJob& job, Range&& range) {
  const Index& index = *job.index_;
  const Descriptor& descriptor = job.descriptor_;
  for (uint32_t slot = job.first_slot_; slot < job.end_slot_; ++slot) {
    for (uint32_t head = 0; head < index.at.spec.heads; ++head) {
      for (uint32_t token = descriptor.begin; token < descriptor.end;) {
        const uint32_t count = std::min(kPageTokens - token % kPageTokens, descriptor.end - token);
        if (!range(index.kv_pages[token / kPageTokens], index.at.KvOffset(slot, head, token % kPageTokens),
                   count * index.at.KvTokenBytes())) {
          return false;
        }
        token += count;
      }
    }
  }
  return true;
}

// Returns false when there is no memory for staging.
bool IndexTable::StageValues(KvStoreJob* job) {
  job->staged_.clear();
  return ForRanges(*job, [&](Extent extent, uint64_t offset, uint64_t bytes) {
    job->staged_.push_back(memory_->Stage(extent, offset, bytes));
    return job->staged_.back() != nullptr;
  });
}

void IndexTable::WriteValues(KvStoreJob* job, const uint8_t* values) {
  auto staged = job->staged_.begin();
  ForRanges(*job, [&](Extent extent, uint64_t offset, uint64_t bytes) {
    std::memcpy(*staged++, values, bytes);
    job->ticket_ = memory_->Upload(extent, offset, bytes);
    values += bytes;
    return true;
  });
}

uint16_t IndexTable::BeginKvStore(uint32_t number, const Descriptor& descriptor, const uint8_t* values,
                                  KvStoreJob* job) {
  MNEMO_CHECK(!job->active());
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(!index.changing && index.kv_extent_bytes != 0 && descriptor.end <= index.at.spec.max_tokens);
  const uint32_t first_page = descriptor.begin / kPageTokens;
  const uint32_t end_page = (descriptor.end + kPageTokens - 1) / kPageTokens;
  uint64_t copies = 0;
  for (uint32_t p = first_page; p < std::min<size_t>(end_page, index.kv_pages.size()); ++p) {
    copies += references_[index.kv_pages[p]] > 1 ? index.kv_extent_bytes : 0;
  }
  if (!HasRoom(owner, {.values = copies})) {
    return layout::kStatusFull;
  }
  const bool all = descriptor.layer_slot == layout::kAllLayerSlots;
  job->index_ = &index;
  job->owner_ = number;
  job->descriptor_ = descriptor;
  job->first_slot_ = all ? 0 : descriptor.layer_slot;
  job->end_slot_ = all ? index.at.spec.layer_slots : descriptor.layer_slot + 1U;
  job->ticket_ = 0;
  job->old_pages_ = job->first_changed_ = static_cast<uint32_t>(index.kv_pages.size());
  job->replaced_.clear();
  if (!NewValuePages(owner, job) || !StageValues(job)) {
    UndoValuePages(job);
    return layout::kStatusFull;
  }
  index.changing = true;
  WriteValues(job, values);
  return layout::kStatusOk;
}

bool IndexTable::TryEndKvStore(KvStoreJob* job, Completion* completion) {
  MNEMO_CHECK(job->active());
  if (!memory_->Arrived(job->ticket_)) {
    return false;
  }
  Index& index = *job->index_;
  const Descriptor& descriptor = job->descriptor_;
  const IndexKey key{job->owner_, descriptor.index_id};
  if (job->first_changed_ < index.kv_pages.size()) {
    memory_->PublishPages(key, ExtentKind::kValues, job->first_changed_,
                          std::span(index.kv_pages).subspan(job->first_changed_));
  }
  for (uint32_t slot = job->first_slot_; slot < job->end_slot_; ++slot) {
    index.kv_tokens[slot] = std::max(index.kv_tokens[slot], descriptor.end);
  }
  const uint32_t slots = job->end_slot_ - job->first_slot_;
  memory_->PublishTokens(key, ExtentKind::kValues, job->first_slot_,
                         std::span(index.kv_tokens).subspan(job->first_slot_, slots));
  for (const KvStoreJob::Replaced& one : job->replaced_) {
    DropExtent(OwnerOf(job->owner_), ExtentKind::kValues, one.extent, index.kv_extent_bytes);
  }
  index.changing = false;
  job->index_ = nullptr;
  *completion = Answer(descriptor, layout::kStatusOk, &index);
  completion->bytes_written =
      uint64_t{slots} * index.at.spec.heads * (descriptor.end - descriptor.begin) * index.at.KvTokenBytes();
  return true;
}

void IndexTable::AbortKvStore(KvStoreJob* job) {
  MNEMO_CHECK(job->active());
  job->index_->changing = false;
  UndoValuePages(job);
}

Completion IndexTable::KvStore(uint32_t owner, const Descriptor& descriptor, const uint8_t* values) {
  KvStoreJob job;
  if (const uint16_t status = BeginKvStore(owner, descriptor, values, &job); status != layout::kStatusOk) {
    return Answer(descriptor, status, Find(owner, descriptor.index_id));
  }
  Completion completion;
  while (!TryEndKvStore(&job, &completion)) {
  }
  return completion;
}

uint16_t IndexTable::StartJob(uint32_t number, const Descriptor& descriptor, AppendJob* job) {
  MNEMO_CHECK(!job->active());
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(!index.changing && descriptor.end <= index.at.spec.max_tokens &&
              descriptor.begin % kPageTokens == 0 && descriptor.end % kPageTokens == 0);
  const bool all = descriptor.layer_slot == layout::kAllLayerSlots;
  job->first_page_ = descriptor.begin / kPageTokens;
  job->first_slot_ = all ? 0 : descriptor.layer_slot;
  job->slots_ = all ? index.at.spec.layer_slots : 1;
  const IndexKey key{number, descriptor.index_id};
  const uint64_t offset = index.at.BlockOffset(job->first_slot_, 0);
  const uint64_t bytes = index.at.BlockOffset(job->slots_, 0);
  job->staged_.clear();
  for (uint32_t page = job->first_page_; page < descriptor.end / kPageTokens; ++page) {
    if (page >= index.pages.size()) {
      const Extent extent = NewExtent(owner, ExtentKind::kRecords, key, page, index.extent_bytes);
      if (extent != kNoExtent) {
        index.pages.push_back(extent);
      }
    }
    uint8_t* const staged =
        page < index.pages.size() ? memory_->Stage(index.pages[page], offset, bytes) : nullptr;
    if (staged == nullptr) {
      DropPages(owner, index, PagesInUse(index), UINT32_MAX);
      return layout::kStatusFull;
    }
    job->staged_.push_back(staged);
  }
  index.changing = true;
  job->index_ = &index;
  job->table_ = this;
  job->owner_ = number;
  job->descriptor_ = descriptor;
  job->source_ = {};
  job->payload_ = nullptr;
  job->uploading_ = false;
  job->ticket_ = 0;
  job->prepare_ns_.store(0, std::memory_order_relaxed);
  job->items_ = (descriptor.end - descriptor.begin) / kPageTokens * job->slots_ * index.at.spec.heads;
  return layout::kStatusOk;
}

uint16_t IndexTable::BeginAppend(uint32_t owner, const Descriptor& descriptor, const PageKeySource& source,
                                 AppendJob* job) {
  const uint16_t status = StartJob(owner, descriptor, job);
  job->source_ = source;
  return status;
}

uint16_t IndexTable::BeginAppend(uint32_t owner, const Descriptor& descriptor, const uint8_t* payload,
                                 AppendJob* job) {
  const uint16_t status = StartJob(owner, descriptor, job);
  job->payload_ = payload;
  return status;
}

bool IndexTable::TryEndAppend(AppendJob* job, Completion* completion) {
  MNEMO_CHECK(job->active());
  Index& index = *job->index_;
  const Descriptor& descriptor = job->descriptor_;
  const uint32_t end_page = descriptor.end / kPageTokens;
  if (!std::exchange(job->uploading_, true)) {
    const uint64_t offset = index.at.BlockOffset(job->first_slot_, 0);
    for (uint32_t page = job->first_page_; page < end_page; ++page) {
      job->ticket_ = memory_->Upload(index.pages[page], offset, index.at.BlockOffset(job->slots_, 0));
    }
  }
  if (!memory_->Arrived(job->ticket_)) {
    return false;
  }
  const IndexKey key{job->owner_, descriptor.index_id};
  if (const uint32_t published = PagesInUse(index); published < end_page) {
    memory_->PublishPages(key, ExtentKind::kRecords, published,
                          std::span(index.pages).subspan(published, end_page - published));
  }
  for (uint32_t slot = job->first_slot_; slot < job->first_slot_ + job->slots_; ++slot) {
    index.tokens[slot] = descriptor.end;
  }
  memory_->PublishTokens(key, ExtentKind::kRecords, job->first_slot_,
                         std::span(index.tokens).subspan(job->first_slot_, job->slots_));
  index.changing = false;
  job->index_ = nullptr;
  *completion = Answer(descriptor, layout::kStatusOk, &index);
  completion->prepare_ns =
      static_cast<uint32_t>(std::min<uint64_t>(job->prepare_ns_.load(std::memory_order_relaxed), UINT32_MAX));
  completion->bytes_written = job->items_ * index.at.block_bytes;
  return true;
}

Completion IndexTable::EndAppend(AppendJob* job) {
  Completion completion;
  while (!TryEndAppend(job, &completion)) {
  }
  return completion;
}

void IndexTable::AbortAppend(AppendJob* job) {
  MNEMO_CHECK(job->active());
  Index& index = *job->index_;
  index.changing = false;
  job->index_ = nullptr;
  DropPages(OwnerOf(job->owner_), index, PagesInUse(index), UINT32_MAX);
}

Completion IndexTable::Append(uint32_t owner, const Descriptor& descriptor, const uint8_t* payload) {
  AppendJob job;
  if (const uint16_t status = BeginAppend(owner, descriptor, payload, &job); status != layout::kStatusOk) {
    return Answer(descriptor, status, Find(owner, descriptor.index_id));
  }
  for (uint32_t item = 0; item < job.items(); ++item) {
    job.RunItem(item, 0);
  }
  return EndAppend(&job);
}

}  // namespace mnemo::memory_device
