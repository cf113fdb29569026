#include "devices/memory/index_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

namespace mnemo::memory_device {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

// Sizes of a spec's extents, in it or yet to be made.
struct ExtentSizes {
  uint64_t block;
  uint64_t records;
  uint64_t values;
};

ExtentSizes SizesOf(const layout::IndexSpec& spec) {
  const uint64_t block = devices::cpu::BlockOf(spec.record_format, spec.dim).bytes;
  const uint64_t heads = uint64_t{spec.layer_slots} * spec.heads;
  return {block, heads * block, heads * kPageTokens * layout::KvTokenBytes(spec.kv_format, spec.dim)};
}

// What the index may still take from its owner's quota.
uint64_t Unwritten(const Index& index) {
  const uint64_t pages = index.spec.max_tokens / kPageTokens;
  return (pages - index.pages.size()) * index.extent_bytes +
         (pages - index.kv_pages.size()) * index.kv_extent_bytes;
}

// Of records, in any slot.
uint32_t PagesInUse(const Index& index) {
  return *std::max_element(index.tokens.begin(), index.tokens.end()) / kPageTokens;
}

uint32_t Least(const std::vector<uint32_t>& counts) {
  return *std::min_element(counts.begin(), counts.end());
}

}  // namespace

// Of one thread that runs items of appends.
struct IndexStore::Scratch {
  alignas(64) float keys[size_t{kPageTokens} * layout::kMaxDim];
  alignas(64) uint8_t record[layout::RecordBytes(layout::kFormatCodes8, layout::kMaxDim)];
};

void AppendJob::RunItem(uint32_t item, int thread) {
  if (item >= items_) {
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  const layout::IndexSpec& spec = index_->spec;
  const uint32_t head = item % spec.heads;
  const uint32_t slot = first_slot_ + item / spec.heads % slots_;
  const uint32_t page = first_page_ + item / spec.heads / slots_;
  IndexStore::Scratch& scratch = *store_->scratch_[static_cast<size_t>(thread)];
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
  store_->kernels_->make_record(keys.data, keys.row_stride_bytes, keys.value_type, spec.dim,
                                spec.record_format, scratch.record, record_bytes);
  devices::cpu::StoreBlock(scratch.record, spec.record_format, spec.dim,
                           index_->pages[page] + index_->BlockOffset(slot, head));
  const auto took = std::chrono::steady_clock::now() - start;
  prepare_ns_.fetch_add(static_cast<uint64_t>(std::chrono::nanoseconds(took).count()),
                        std::memory_order_relaxed);
}

absl::StatusOr<std::unique_ptr<IndexStore>> IndexStore::Create(const Options& options) {
  std::unique_ptr<IndexStore> store(new IndexStore(options));
  if (store->kernels_ == nullptr) {
    return InvalidArgument("isa '{}' is not one that this machine can run", options.isa);
  }
  return store;
}

IndexStore::IndexStore(const Options& options)
    : options_(options),
      kernels_(devices::cpu::FindIndexKernels(options.isa.c_str())),
      owners_(options.max_owners) {
  for (int i = 0; i < options.threads; ++i) {
    scratch_.push_back(std::make_unique<Scratch>());
  }
}

IndexStore::~IndexStore() {
  for (uint32_t owner = 0; owner < owners_.size(); ++owner) {
    if (owners_[owner].used) {
      RemoveOwner(owner);
    }
  }
}

absl::StatusOr<uint32_t> IndexStore::AddOwner(const OwnerLimits& limits) {
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

void IndexStore::RemoveOwner(uint32_t number) {
  Owner& owner = OwnerOf(number);
  for (std::unique_ptr<Index>& index : owner.indexes) {
    if (index != nullptr) {
      FreeIndex(owner, index);
    }
  }
  MNEMO_CHECK(owner.stats.reserved_bytes == 0 && owner.stats.held_bytes == 0 && owner.stats.extents == 0);
  granted_bytes_ -= owner.limits.quota_bytes;
  owner = Owner();
}

IndexStore::Owner& IndexStore::OwnerOf(uint32_t owner) {
  MNEMO_CHECK(owner < owners_.size() && owners_[owner].used);
  return owners_[owner];
}

const IndexStore::Owner& IndexStore::OwnerOf(uint32_t owner) const {
  MNEMO_CHECK(owner < owners_.size() && owners_[owner].used);
  return owners_[owner];
}

const Index* IndexStore::Find(uint32_t owner, uint32_t index_id) const {
  if (owner >= owners_.size() || index_id >= owners_[owner].indexes.size()) {
    return nullptr;
  }
  return owners_[owner].indexes[index_id].get();
}

Index& IndexStore::IndexOf(uint32_t owner, uint32_t index_id) {
  Owner& of = OwnerOf(owner);
  MNEMO_CHECK(index_id < of.indexes.size() && of.indexes[index_id] != nullptr);
  return *of.indexes[index_id];
}

layout::IndexInfo IndexStore::Info(uint32_t owner, uint32_t index_id, uint32_t layer_slot) const {
  layout::IndexInfo info;
  const Index* index = Find(owner, index_id);
  if (index == nullptr) {
    return info;
  }
  info.exists = true;
  info.generation = index->generation;
  info.layer_slots = index->spec.layer_slots;
  info.heads = index->spec.heads;
  info.dim = index->spec.dim;
  info.record_format = index->spec.record_format;
  info.kv_format = index->spec.kv_format;
  info.max_tokens = index->spec.max_tokens;
  const bool one = layer_slot < index->spec.layer_slots;
  info.tokens = one ? index->tokens[layer_slot] : Least(index->tokens);
  info.kv_tokens = one ? index->kv_tokens[layer_slot] : Least(index->kv_tokens);
  return info;
}

OwnerStats IndexStore::Stats(uint32_t owner) const { return OwnerOf(owner).stats; }

uint64_t IndexStore::BytesFor(const layout::IndexSpec& spec, uint32_t tokens) {
  const ExtentSizes sizes = SizesOf(spec);
  return (uint64_t{tokens} + kPageTokens - 1) / kPageTokens * (sizes.records + sizes.values);
}

Completion IndexStore::Answer(const Descriptor& descriptor, uint16_t status, const Index* index) {
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

uint8_t* IndexStore::NewExtent(Owner& owner, uint64_t bytes) {
  uint8_t* extent = pool_.Allocate(bytes);
  if (extent != nullptr) {
    owner.stats.held_bytes += bytes;
    ++owner.stats.extents;
  }
  return extent;
}

void IndexStore::DropExtent(Owner& owner, uint8_t* extent, uint64_t bytes) {
  if (pool_.Release(extent)) {
    owner.stats.held_bytes -= bytes;
    owner.stats.reserved_bytes -= bytes;
    --owner.stats.extents;
  }
}

void IndexStore::DropPages(Owner& owner, Index& index, uint32_t from_page, uint32_t from_kv_page) {
  const uint64_t before = Unwritten(index);
  for (; index.pages.size() > from_page; index.pages.pop_back()) {
    DropExtent(owner, index.pages.back(), index.extent_bytes);
  }
  for (; index.kv_pages.size() > from_kv_page; index.kv_pages.pop_back()) {
    DropExtent(owner, index.kv_pages.back(), index.kv_extent_bytes);
  }
  owner.stats.reserved_bytes += Unwritten(index) - before;
}

void IndexStore::FreeIndex(Owner& owner, std::unique_ptr<Index>& index) {
  MNEMO_CHECK(!index->appending);
  DropPages(owner, *index, 0, 0);
  owner.stats.reserved_bytes -= Unwritten(*index);
  --owner.stats.indexes;
  index.reset();
}

Completion IndexStore::Create(uint32_t number, const Descriptor& descriptor, const layout::IndexSpec& spec) {
  Owner& owner = OwnerOf(number);
  MNEMO_CHECK(descriptor.index_id < owner.indexes.size() && owner.indexes[descriptor.index_id] == nullptr);
  if (draining_) {
    return Answer(descriptor, layout::kStatusDraining, nullptr);
  }
  const uint64_t bytes = BytesFor(spec, spec.max_tokens);
  if (bytes > owner.limits.quota_bytes - owner.stats.reserved_bytes) {
    return Answer(descriptor, layout::kStatusFull, nullptr);
  }
  auto index = std::make_unique<Index>();
  const ExtentSizes sizes = SizesOf(spec);
  index->spec = spec;
  index->generation = descriptor.index_generation;
  index->block_bytes = sizes.block;
  index->extent_bytes = sizes.records;
  index->kv_extent_bytes = sizes.values;
  index->pages.reserve(spec.max_tokens / kPageTokens);
  index->kv_pages.reserve(sizes.values != 0 ? spec.max_tokens / kPageTokens : 0);
  index->tokens.resize(spec.layer_slots);
  index->kv_tokens.resize(spec.layer_slots);
  owner.stats.reserved_bytes += Unwritten(*index);
  ++owner.stats.indexes;
  owner.indexes[descriptor.index_id] = std::move(index);
  return Answer(descriptor, layout::kStatusOk, owner.indexes[descriptor.index_id].get());
}

Completion IndexStore::Fork(uint32_t number, const Descriptor& descriptor) {
  Owner& owner = OwnerOf(number);
  const Index& source = IndexOf(number, descriptor.k1);
  MNEMO_CHECK(descriptor.end <= Least(source.tokens));
  const uint32_t shared = descriptor.end / kPageTokens;
  // Pages of K and V that are not full could still be written to by both.
  const uint32_t kv_shared = std::min(descriptor.end, Least(source.kv_tokens)) / kPageTokens;
  const uint64_t pages = source.spec.max_tokens / kPageTokens;
  const uint64_t bytes =
      (pages - shared) * source.extent_bytes + (pages - kv_shared) * source.kv_extent_bytes;
  if (draining_ || bytes > owner.limits.quota_bytes - owner.stats.reserved_bytes) {
    return Answer(descriptor, draining_ ? layout::kStatusDraining : layout::kStatusFull, nullptr);
  }
  const layout::IndexSpec spec = source.spec;
  MNEMO_CHECK(descriptor.index_id < owner.indexes.size() && owner.indexes[descriptor.index_id] == nullptr);
  auto index = std::make_unique<Index>();
  index->spec = spec;
  index->generation = descriptor.index_generation;
  index->block_bytes = source.block_bytes;
  index->extent_bytes = source.extent_bytes;
  index->kv_extent_bytes = source.kv_extent_bytes;
  index->pages.reserve(pages);
  index->pages.assign(source.pages.begin(), source.pages.begin() + shared);
  if (source.kv_extent_bytes != 0) {
    index->kv_pages.reserve(pages);
    index->kv_pages.assign(source.kv_pages.begin(), source.kv_pages.begin() + kv_shared);
  }
  for (const std::vector<uint8_t*>* extents : {&index->pages, &index->kv_pages}) {
    for (uint8_t* extent : *extents) {
      ExtentPool::AddReference(extent);
    }
  }
  index->tokens.assign(spec.layer_slots, descriptor.end);
  index->kv_tokens.assign(spec.layer_slots, kv_shared * kPageTokens);
  owner.stats.reserved_bytes += Unwritten(*index);
  ++owner.stats.indexes;
  owner.indexes[descriptor.index_id] = std::move(index);
  return Answer(descriptor, layout::kStatusOk, owner.indexes[descriptor.index_id].get());
}

Completion IndexStore::Truncate(uint32_t number, const Descriptor& descriptor) {
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(!index.appending);
  const uint32_t pages = descriptor.end / kPageTokens;
  uint64_t stay = 0;  // bytes that others hold on to, and this index may write anew
  for (uint32_t p = pages; p < index.pages.size(); ++p) {
    stay += ExtentPool::References(index.pages[p]) > 1 ? index.extent_bytes : 0;
  }
  for (uint32_t p = pages; p < index.kv_pages.size(); ++p) {
    stay += ExtentPool::References(index.kv_pages[p]) > 1 ? index.kv_extent_bytes : 0;
  }
  if (stay > owner.limits.quota_bytes - owner.stats.reserved_bytes) {
    return Answer(descriptor, layout::kStatusFull, &index);
  }
  DropPages(owner, index, pages, pages);
  for (uint32_t& tokens : index.tokens) {
    tokens = std::min(tokens, descriptor.end);
  }
  for (uint32_t& tokens : index.kv_tokens) {
    tokens = std::min(tokens, descriptor.end);
  }
  return Answer(descriptor, layout::kStatusOk, &index);
}

Completion IndexStore::Free(uint32_t number, const Descriptor& descriptor) {
  Owner& owner = OwnerOf(number);
  IndexOf(number, descriptor.index_id);
  FreeIndex(owner, owner.indexes[descriptor.index_id]);
  return Answer(descriptor, layout::kStatusOk, nullptr);
}

Completion IndexStore::KvStore(uint32_t number, const Descriptor& descriptor, const uint8_t* values) {
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(index.kv_extent_bytes != 0 && descriptor.end <= index.spec.max_tokens);
  const uint32_t first_page = descriptor.begin / kPageTokens;
  const uint32_t end_page = (descriptor.end + kPageTokens - 1) / kPageTokens;
  // Pages that others share are copied before they are written to.
  uint64_t copies = 0;
  for (uint32_t p = first_page; p < std::min<size_t>(end_page, index.kv_pages.size()); ++p) {
    copies += ExtentPool::References(index.kv_pages[p]) > 1 ? index.kv_extent_bytes : 0;
  }
  if (copies > owner.limits.quota_bytes - owner.stats.reserved_bytes) {
    return Answer(descriptor, layout::kStatusFull, &index);
  }
  for (uint32_t p = first_page; p < end_page; ++p) {
    const bool fresh = p >= index.kv_pages.size();
    if (!fresh && ExtentPool::References(index.kv_pages[p]) == 1) {
      continue;
    }
    uint8_t* extent = NewExtent(owner, index.kv_extent_bytes);
    if (extent == nullptr) {
      return Answer(descriptor, layout::kStatusFull, &index);
    }
    if (fresh) {
      index.kv_pages.push_back(extent);
    } else {
      std::memcpy(extent, index.kv_pages[p], index.kv_extent_bytes);
      pool_.Release(index.kv_pages[p]);
      index.kv_pages[p] = extent;
      owner.stats.reserved_bytes += index.kv_extent_bytes;
    }
  }
  const bool all = descriptor.layer_slot == layout::kAllLayerSlots;
  const uint32_t first_slot = all ? 0 : descriptor.layer_slot;
  const uint32_t end_slot = all ? index.spec.layer_slots : first_slot + 1;
  const uint64_t token_bytes = index.KvTokenBytes();
  for (uint32_t slot = first_slot; slot < end_slot; ++slot) {
    for (uint32_t head = 0; head < index.spec.heads; ++head) {
      for (uint32_t token = descriptor.begin; token < descriptor.end;) {
        const uint32_t count = std::min(kPageTokens - token % kPageTokens, descriptor.end - token);
        std::memcpy(index.kv_pages[token / kPageTokens] + index.KvOffset(slot, head, token % kPageTokens),
                    values, count * token_bytes);
        values += count * token_bytes;
        token += count;
      }
    }
    index.kv_tokens[slot] = std::max(index.kv_tokens[slot], descriptor.end);
  }
  Completion answer = Answer(descriptor, layout::kStatusOk, &index);
  answer.bytes_written =
      uint64_t{end_slot - first_slot} * index.spec.heads * (descriptor.end - descriptor.begin) * token_bytes;
  return answer;
}

uint16_t IndexStore::StartJob(uint32_t number, const Descriptor& descriptor, AppendJob* job) {
  MNEMO_CHECK(!job->active());
  Owner& owner = OwnerOf(number);
  Index& index = IndexOf(number, descriptor.index_id);
  MNEMO_CHECK(!index.appending && descriptor.end <= index.spec.max_tokens &&
              descriptor.begin % kPageTokens == 0 && descriptor.end % kPageTokens == 0);
  for (size_t page = index.pages.size(); page < descriptor.end / kPageTokens; ++page) {
    uint8_t* extent = NewExtent(owner, index.extent_bytes);
    if (extent == nullptr) {
      DropPages(owner, index, PagesInUse(index), UINT32_MAX);
      return layout::kStatusFull;
    }
    index.pages.push_back(extent);
  }
  const bool all = descriptor.layer_slot == layout::kAllLayerSlots;
  index.appending = true;
  job->index_ = &index;
  job->store_ = this;
  job->owner_ = number;
  job->descriptor_ = descriptor;
  job->source_ = {};
  job->payload_ = nullptr;
  job->prepare_ns_.store(0, std::memory_order_relaxed);
  job->first_page_ = descriptor.begin / kPageTokens;
  job->first_slot_ = all ? 0 : descriptor.layer_slot;
  job->slots_ = all ? index.spec.layer_slots : 1;
  job->items_ = (descriptor.end - descriptor.begin) / kPageTokens * job->slots_ * index.spec.heads;
  return layout::kStatusOk;
}

uint16_t IndexStore::BeginAppend(uint32_t owner, const Descriptor& descriptor, const KeySource& source,
                                 AppendJob* job) {
  const uint16_t status = StartJob(owner, descriptor, job);
  job->source_ = source;
  return status;
}

uint16_t IndexStore::BeginAppend(uint32_t owner, const Descriptor& descriptor, const uint8_t* payload,
                                 AppendJob* job) {
  const uint16_t status = StartJob(owner, descriptor, job);
  job->payload_ = payload;
  return status;
}

Completion IndexStore::EndAppend(AppendJob* job) {
  MNEMO_CHECK(job->active());
  Index& index = *job->index_;
  for (uint32_t slot = job->first_slot_; slot < job->first_slot_ + job->slots_; ++slot) {
    index.tokens[slot] = job->descriptor_.end;
  }
  index.appending = false;
  job->index_ = nullptr;
  Completion answer = Answer(job->descriptor_, layout::kStatusOk, &index);
  answer.prepare_ns =
      static_cast<uint32_t>(std::min<uint64_t>(job->prepare_ns_.load(std::memory_order_relaxed), UINT32_MAX));
  answer.bytes_written = job->items_ * index.block_bytes;
  return answer;
}

void IndexStore::AbortAppend(AppendJob* job) {
  MNEMO_CHECK(job->active());
  Index& index = *job->index_;
  index.appending = false;
  job->index_ = nullptr;
  DropPages(OwnerOf(job->owner_), index, PagesInUse(index), UINT32_MAX);
}

Completion IndexStore::Append(uint32_t owner, const Descriptor& descriptor, const uint8_t* payload) {
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
