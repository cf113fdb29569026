#include "devices/memory/index_table.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "devices/memory/codes.h"
#include "devices/memory/cpu/cpu_record_memory.h"
#include "proto/layout/record.h"

namespace mnemo::memory_device {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;

constexpr uint32_t kSlots = 2;
constexpr uint32_t kHeads = 2;
constexpr uint32_t kDim = 16;
constexpr uint32_t kMaxPages = 6;
constexpr uint32_t kIndexes = 6;

layout::IndexSpec Spec(uint32_t format, uint32_t kv_format) {
  layout::IndexSpec spec{};
  spec.max_tokens = kMaxPages * kPageTokens;
  spec.layer_slots = kSlots;
  spec.heads = kHeads;
  spec.dim = kDim;
  spec.record_format = static_cast<uint8_t>(format);
  spec.kv_format = static_cast<uint8_t>(kv_format);
  return spec;
}

// Keys of a page, slot and head that differ by a seed.
void FillKeys(uint32_t seed, uint32_t slot, uint32_t head, float* keys) {
  std::mt19937 random(seed * 64 + slot * 8 + head);
  for (uint32_t i = 0; i < kPageTokens * kDim; ++i) {
    keys[i] = static_cast<float>(static_cast<int32_t>(random())) * 1e-9F;
  }
}

uint16_t KvValue(uint32_t seed, uint32_t slot, uint32_t head, uint32_t token, uint32_t i) {
  return static_cast<uint16_t>(seed * 7919 + slot * 1000 + head * 300 + token * 41 + i);
}

// A memory that places pages by index, as a card does: an extent serves one page of one placement, and forks
// share a placement.
class PlacingMemory final : public RecordMemory {
 public:
  explicit PlacingMemory(uint64_t record_bytes) : capacity_(record_bytes) {}
  const ResidentLayout& layout() const override { return inner_.layout(); }
  uint64_t record_capacity_bytes() const override { return capacity_; }
  Extent Allocate(ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) override {
    const Extent extent = inner_.Allocate(kind, key, page, bytes);
    if (extent != kNoExtent) places_[extent] = {kind, placements_.at(key.index_id), page};
    return extent;
  }
  void Release(Extent extent) override {
    REQUIRE(places_.erase(extent) == 1);
    inner_.Release(extent);
  }
  uint8_t* Stage(Extent extent, uint64_t offset, uint64_t bytes) override {
    return inner_.Stage(extent, offset, bytes);
  }
  Ticket Upload(Extent extent, uint64_t offset, uint64_t bytes) override {
    return inner_.Upload(extent, offset, bytes);
  }
  Ticket Copy(Extent from, Extent to) override {
    REQUIRE(places_.at(from) == places_.at(to));
    return inner_.Copy(from, to);
  }
  bool Arrived(Ticket ticket) override { return inner_.Arrived(ticket); }
  absl::Status Read(Extent extent, uint64_t offset, std::span<uint8_t> out) override {
    return inner_.Read(extent, offset, out);
  }
  void OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                 const IndexKey* forked_from) override {
    if (forked_from != nullptr) {
      REQUIRE(forked_from->owner == key.owner);
      ++forks_;
    }
    const uint32_t placement = forked_from != nullptr ? placements_.at(forked_from->index_id) : ++last_;
    REQUIRE(placements_.emplace(key.index_id, placement).second);
    inner_.OpenIndex(key, generation, spec, forked_from);
  }
  void PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                    std::span<const Extent> pages) override {
    for (uint32_t n = 0; n < pages.size(); ++n) {
      REQUIRE(places_.at(pages[n]) == Place{kind, placements_.at(key.index_id), first_page + n});
    }
    inner_.PublishPages(key, kind, first_page, pages);
  }
  void PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                     std::span<const uint32_t> tokens) override {
    inner_.PublishTokens(key, kind, first_slot, tokens);
  }
  void CloseIndex(IndexKey key) override {
    placements_.erase(key.index_id);
    inner_.CloseIndex(key);
  }
  int forks() const { return forks_; }

 private:
  struct Place {
    ExtentKind kind;
    uint32_t placement;
    uint32_t page;
    bool operator==(const Place&) const = default;
  };
  const uint64_t capacity_;
  cpu::CpuRecordMemory inner_;
  std::map<uint32_t, uint32_t> placements_;  // by index; there is one owner
  std::map<Extent, Place> places_;
  uint32_t last_ = 0;
  int forks_ = 0;
};

struct Model {
  uint16_t generation = 0;
  std::vector<uint32_t> pages[kSlots];   // seed of each complete page
  std::vector<uint32_t> values[kSlots];  // seed of each token's K and V
};

class Game {
 public:
  Game(uint32_t seed, uint64_t quota_bytes, uint64_t record_bytes)
      : random_(seed),
        spec_(Spec(layout::kFormatCodes2 + seed % 5, layout::kFormatF16)),
        memory_(record_bytes) {
    table_ = IndexTable::Create({}, &memory_).value();
    owner_ = table_->AddOwner({.quota_bytes = quota_bytes, .max_indexes = kIndexes}).value();
  }

  void Step() {
    const uint32_t id = Below(kIndexes);
    const auto found = models_.find(id);
    if (found == models_.end()) {
      return Below(2) == 0 || models_.empty() ? Create(id) : Fork(id);
    }
    switch (Below(8)) {
      case 0:
        return Free(id);
      case 1:
        return Truncate(id, found->second);
      case 2:
      case 3:
        return KvStore(id, found->second);
      default:
        return Append(id, found->second);
    }
  }

  void Check() {
    std::set<Extent> records;
    std::set<Extent> values;
    uint64_t unwritten = 0;
    for (const auto& [id, model] : models_) {
      const Index& index = *table_->Find(owner_, id);
      CheckContents(id, model, index);
      records.insert(index.pages.begin(), index.pages.end());
      values.insert(index.kv_pages.begin(), index.kv_pages.end());
      unwritten += (kMaxPages - index.pages.size()) * index.extent_bytes +
                   (kMaxPages - index.kv_pages.size()) * index.kv_extent_bytes;
    }
    const OwnerUsage stats = table_->Stats(owner_);
    const uint64_t extent_bytes = table_->BytesFor(Spec(spec_.record_format, 0), kPageTokens);
    const uint64_t kv_bytes = table_->BytesFor(spec_, kPageTokens) - extent_bytes;
    CHECK(stats.indexes == models_.size());
    CHECK(stats.extents == records.size() + values.size());
    CHECK(stats.held_bytes == records.size() * extent_bytes + values.size() * kv_bytes);
    CHECK(stats.reserved_bytes == stats.held_bytes + unwritten);
    CHECK(stats.reserved_bytes <= stats.quota_bytes);
    CHECK(ReservedRecords() <= memory_.record_capacity_bytes());
  }

  int full() const { return full_; }
  int forks() const { return memory_.forks(); }

  void End() {
    const uint64_t quota = table_->Stats(owner_).quota_bytes;
    table_->RemoveOwner(owner_);  // which checks that nothing is left
    CHECK(table_->Find(owner_, 0) == nullptr);
    models_.clear();
    owner_ = table_->AddOwner({.quota_bytes = quota, .max_indexes = kIndexes}).value();
    for (uint32_t id = 0; id < kIndexes; ++id) Create(id);  // as many as have room again
    table_->RemoveOwner(owner_);
  }

 private:
  uint64_t RecordBytes(uint64_t pages) const {
    return pages * table_->BytesFor(Spec(spec_.record_format, 0), kPageTokens);
  }

  // Counts extents, each once, and pages that indexes may still append.
  uint64_t ReservedRecords() const {
    std::set<Extent> extents;
    uint64_t unwritten = 0;
    for (const auto& [id, model] : models_) {
      const std::vector<Extent>& pages = table_->Find(owner_, id)->pages;
      extents.insert(pages.begin(), pages.end());
      unwritten += kMaxPages - pages.size();
    }
    return RecordBytes(extents.size() + unwritten);
  }

  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }

  Descriptor Op(uint8_t op, uint32_t id) {
    Descriptor d{};
    d.op = op;
    d.index_id = id;
    d.seq = ++seq_;
    if (const auto found = models_.find(id); found != models_.end()) {
      d.index_generation = found->second.generation;
    }
    return d;
  }

  // Whether it was done; a full store changes nothing, which Check sees.
  bool Done(const Completion& completion) {
    REQUIRE(completion.seq == seq_);
    full_ += completion.status == layout::kStatusFull ? 1 : 0;
    REQUIRE((completion.status == layout::kStatusOk || completion.status == layout::kStatusFull));
    return completion.status == layout::kStatusOk;
  }

  void Create(uint32_t id) {
    Descriptor d = Op(layout::kOpCreate, id);
    d.index_generation = ++generation_;
    const OwnerUsage before = table_->Stats(owner_);
    const bool fits =
        before.reserved_bytes + table_->BytesFor(spec_, spec_.max_tokens) <= before.quota_bytes &&
        ReservedRecords() + RecordBytes(kMaxPages) <= memory_.record_capacity_bytes();
    const bool done = Done(table_->Create(owner_, d, spec_));
    CHECK(done == fits);
    if (done) {
      models_[id].generation = generation_;
    }
  }

  void Fork(uint32_t id) {
    const auto source = std::next(models_.begin(), Below(static_cast<uint32_t>(models_.size())));
    const Model from = source->second;
    const auto pages = static_cast<uint32_t>(std::min(from.pages[0].size(), from.pages[1].size()));
    Descriptor d = Op(layout::kOpFork, id);
    d.index_generation = ++generation_;
    d.k1 = source->first;
    const uint32_t shared = Below(pages + 1);
    d.end = shared * kPageTokens;
    if (!Done(table_->Fork(owner_, d))) {
      return;
    }
    Model& model = models_[id];
    model.generation = generation_;
    const size_t kv =
        std::min({size_t{d.end}, from.values[0].size(), from.values[1].size()}) / kPageTokens * kPageTokens;
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      model.pages[slot].assign(from.pages[slot].begin(), from.pages[slot].begin() + shared);
      model.values[slot].assign(from.values[slot].begin(),
                                from.values[slot].begin() + static_cast<ptrdiff_t>(kv));
    }
  }

  void Free(uint32_t id) {
    REQUIRE(Done(table_->Free(owner_, Op(layout::kOpFree, id))));
    models_.erase(id);
  }

  void Truncate(uint32_t id, Model& model) {
    const auto pages = static_cast<uint32_t>(std::min(model.pages[0].size(), model.pages[1].size()));
    Descriptor d = Op(layout::kOpTruncate, id);
    d.end = Below(pages + 1) * kPageTokens;
    if (!Done(table_->Truncate(owner_, d))) {
      return;
    }
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      model.pages[slot].resize(std::min<size_t>(model.pages[slot].size(), d.end / kPageTokens));
      model.values[slot].resize(std::min<size_t>(model.values[slot].size(), d.end));
    }
  }

  void Append(uint32_t id, Model& model) {
    Descriptor d = Op(layout::kOpAppend, id);
    const bool all = model.pages[0].size() == model.pages[1].size() && Below(3) != 0;
    const uint32_t slot = Below(kSlots);
    const auto begin = static_cast<uint32_t>(model.pages[all ? 0 : slot].size());
    if (begin == kMaxPages) {
      return;
    }
    const uint32_t pages = 1 + Below(kMaxPages - begin);
    d.layer_slot = static_cast<uint16_t>(all ? uint32_t{layout::kAllLayerSlots} : slot);
    d.heads = kHeads;
    d.format = layout::kFormatF32;
    d.begin = begin * kPageTokens;
    d.end = (begin + pages) * kPageTokens;
    const uint32_t seed = ++keys_;
    AppendJob job;
    struct Context {
      uint32_t seed;
    } context{seed};
    const PageKeySource source{[](void* of, uint32_t page, uint32_t of_slot, uint32_t head, float* scratch) {
                                 FillKeys(static_cast<Context*>(of)->seed + page * 100000, of_slot, head,
                                          scratch);
                                 return layout::PageKeys{scratch, kDim * 4, layout::kFormatF32};
                               },
                               &context};
    REQUIRE(table_->BeginAppend(owner_, d, source, &job) == layout::kStatusOk);
    REQUIRE(job.items() == pages * kHeads * (all ? kSlots : 1));
    if (Below(6) == 0) {
      job.RunItem(0, 0);
      table_->AbortAppend(&job);
      return;
    }
    for (uint32_t item = job.items(); item-- > 0;) {
      job.RunItem(item, 0);
    }
    const Completion completion = table_->EndAppend(&job);
    REQUIRE(Done(completion));
    CHECK(completion.watermark == d.end);
    for (uint32_t s = 0; s < kSlots; ++s) {
      for (uint32_t p = begin; p < begin + pages && (all || s == slot); ++p) {
        model.pages[s].push_back(seed + p * 100000);
      }
    }
  }

  void KvStore(uint32_t id, Model& model) {
    Descriptor d = Op(layout::kOpKvStore, id);
    const bool all = Below(2) == 0;
    const uint32_t slot = Below(kSlots);
    const auto held = static_cast<uint32_t>(all ? std::min(model.values[0].size(), model.values[1].size())
                                                : model.values[slot].size());
    // At times over what is there already.
    d.begin = Below(4) == 0 ? held - Below(held + 1) : held;
    if (d.begin == spec_.max_tokens) {
      return;
    }
    d.end = d.begin + 1 + Below(std::min(spec_.max_tokens - d.begin, 150U));
    d.layer_slot = static_cast<uint16_t>(all ? uint32_t{layout::kAllLayerSlots} : slot);
    d.heads = kHeads;
    d.format = layout::kFormatF16;
    const uint32_t seed = ++keys_;
    std::vector<uint16_t> payload;
    for (uint32_t s = all ? 0 : slot; s < (all ? kSlots : slot + 1); ++s) {
      for (uint32_t head = 0; head < kHeads; ++head) {
        for (uint32_t token = d.begin; token < d.end; ++token) {
          for (uint32_t i = 0; i < 2 * kDim; ++i) payload.push_back(KvValue(seed, s, head, token, i));
        }
      }
    }
    if (!Done(table_->KvStore(owner_, d, reinterpret_cast<const uint8_t*>(payload.data())))) {
      return;
    }
    for (uint32_t s = 0; s < kSlots; ++s) {
      if (all || s == slot) {
        model.values[s].resize(std::max<size_t>(model.values[s].size(), d.end));
        std::fill(model.values[s].begin() + d.begin, model.values[s].begin() + d.end, seed);
      }
    }
  }

  void CheckContents(uint32_t id, const Model& model, const Index& index) {
    REQUIRE(index.generation == model.generation);
    std::vector<float> keys(kPageTokens * kDim);
    std::vector<uint8_t> record(layout::RecordBytes(spec_.record_format, kDim));
    std::vector<uint8_t> block(index.at.block_bytes);
    std::vector<uint8_t> resident(index.at.block_bytes);
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      const layout::IndexInfo info = table_->Info(owner_, id, slot);
      REQUIRE(info.tokens == model.pages[slot].size() * kPageTokens);
      REQUIRE(info.kv_tokens == model.values[slot].size());
      for (uint32_t head = 0; head < kHeads; ++head) {
        for (uint32_t p = 0; p < model.pages[slot].size(); ++p) {
          FillKeys(model.pages[slot][p], slot, head, keys.data());
          MakeRecordFast({keys.data(), kDim * 4, layout::kFormatF32}, kDim, spec_.record_format, record);
          memory_.layout().store_block(record.data(), spec_.record_format, kDim, block.data());
          REQUIRE(memory_.Read(index.pages[p], index.at.BlockOffset(slot, head), resident).ok());
          REQUIRE(resident == block);
        }
        for (uint32_t token = 0; token < model.values[slot].size(); ++token) {
          uint16_t value[2 * kDim];
          REQUIRE(memory_
                      .Read(index.kv_pages[token / kPageTokens],
                            index.at.KvOffset(slot, head, token % kPageTokens),
                            {reinterpret_cast<uint8_t*>(value), sizeof value})
                      .ok());
          for (uint32_t i = 0; i < 2 * kDim; ++i) {
            REQUIRE(value[i] == KvValue(model.values[slot][token], slot, head, token, i));
          }
        }
      }
    }
    const layout::IndexInfo least = table_->Info(owner_, id, layout::kAllLayerSlots);
    REQUIRE(least.tokens == std::min(model.pages[0].size(), model.pages[1].size()) * kPageTokens);
  }

  std::mt19937 random_;
  const layout::IndexSpec spec_;
  PlacingMemory memory_;
  std::unique_ptr<IndexTable> table_;
  uint32_t owner_ = 0;
  std::map<uint32_t, Model> models_;
  uint32_t seq_ = 0;
  uint32_t keys_ = 0;
  uint16_t generation_ = 0;
  int full_ = 0;
};

TEST_CASE("random operations leave what a simple model has, within their bounds, and nothing behind") {
  int full = 0;
  int forks = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    INFO("seed " << seed);
    // From room for all indexes to room for less than two.
    cpu::CpuRecordMemory memory;
    const auto table = IndexTable::Create({}, &memory).value();
    const uint32_t format = layout::kFormatCodes2 + seed % 5;
    const uint64_t one = table->BytesFor(Spec(format, layout::kFormatF16), kMaxPages * kPageTokens);
    const uint64_t records = table->BytesFor(Spec(format, 0), kMaxPages * kPageTokens);
    // The quota or the device's memory for records is short.
    const bool by_device = seed % 2 == 0;
    const uint64_t halves = 12 - seed % 6 * 2 + 1;
    Game game(seed, by_device ? one * 12 : one * halves / 2, by_device ? records * halves / 2 : UINT64_MAX);
    for (int step = 0; step < 120; ++step) {
      game.Step();
      if (step % 5 == 0) {
        game.Check();
      }
    }
    game.Check();
    game.End();
    full += game.full();
    forks += game.forks();
  }
  CHECK(full > 20);
  CHECK(forks > 20);
}

TEST_CASE("bounds of owners are told") {
  cpu::CpuRecordMemory memory;
  auto table = IndexTable::Create({.capacity_bytes = 1000, .max_owners = 2}, &memory).value();
  const uint32_t first = table->AddOwner({.quota_bytes = 600, .max_indexes = 1}).value();
  const auto second = table->AddOwner({.quota_bytes = 600, .max_indexes = 1});
  REQUIRE(second.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(std::string(second.status().message()) == "quota_bytes: 600 asked for, 400 of 1000 are left");
  REQUIRE(table->AddOwner({.quota_bytes = 400, .max_indexes = 1}).ok());
  CHECK(std::string(table->AddOwner({}).status().message()) == "owners: 2 are there, the bound");
  table->RemoveOwner(first);
  CHECK(table->AddOwner({.quota_bytes = 600, .max_indexes = 1}).value() == first);
  CHECK_FALSE(IndexTable::Create({.isa = "abacus"}, &memory).ok());
}

TEST_CASE("a table that drains takes no new indexes") {
  cpu::CpuRecordMemory memory;
  auto table = IndexTable::Create({}, &memory).value();
  const uint32_t owner = table->AddOwner({.quota_bytes = 1 << 20, .max_indexes = 2}).value();
  table->Drain(true);
  Descriptor d{};
  d.op = layout::kOpCreate;
  CHECK(table->Create(owner, d, Spec(layout::kFormatCodes2, 0)).status == layout::kStatusDraining);
  table->Drain(false);
  CHECK(table->Create(owner, d, Spec(layout::kFormatCodes2, 0)).status == layout::kStatusOk);
  d.op = layout::kOpFork;
  d.index_id = 1;
  table->Drain(true);
  CHECK(table->Fork(owner, d).status == layout::kStatusDraining);
}

}  // namespace
}  // namespace mnemo::memory_device
