#include "server/memory/pipeline.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "devices/base/clock.h"
#include "devices/memory/codes.h"
#include "proto/layout/record.h"
#include "server/memory/attacher.h"
#include "server/memory/cache_source.h"
#include "server/memory/hot_cache.h"
#include "server/memory/inline_client.h"
#include "server/memory/layer_feed.h"
#include "server/memory/placement.h"
#include "server/memory/position_plan.h"
#include "server/memory/step_accounts.h"

namespace mnemo::memory {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPageTokens = layout::kPageTokens;

}  // namespace

class SequenceMemory {
 public:
  AttentionSettings settings;
  methods::MethodSteps steps;
  int max_positions = 0;
  int decode_begin = 0;
  std::vector<int32_t> ids;  // tokens before decode_begin; any sequence may share their records

  Side side = kInWorker;
  MemoryClient* client = nullptr;
  IndexHandle index;
  int taken_pages = 0;  // pages that the client has taken

  // Result blocks of one layer, or of every layer when several positions share a selection.
  std::vector<uint8_t> results;
  size_t slot_bytes = 0;  // 0: all layers use the same
  int anchor = -1;        // position whose selection `results` holds
  int anchor_k = 0;

  devices::SparseSelection selection;
  std::vector<devices::TokenSelection> heads;  // [kv_heads]

  // Resident sequences only.
  std::unique_ptr<HotCache> hot;  // nullptr: not resident
  bool lost = false;
  int kept_pages = 0;
  std::span<const int32_t> local;  // pages of this step, -1 for those in the service
  std::vector<int64_t> places;     // [kv_heads][max_k], for one layer
  size_t max_k = 0;
  std::vector<std::vector<HotCache::Missing>> missing;  // [kv_heads], for one layer
  std::vector<HotCache::Missing> staged;                // pages of 64 tokens, the same for every layer
  uint64_t fetched_tokens = 0;                          // in this step, over all layers and heads

  SequenceAccount account;
};

struct Pipeline::Impl {
  // A row of the step that selects or shares a selection.
  struct Row {
    SequenceMemory* memory = nullptr;
    int row = 0;
    PositionPlan plan;
    bool asks = false;
    size_t query = 0;  // index in queries[side]
    int64_t attended = 0;
  };
  struct SlotContext {
    Impl* impl = nullptr;
    int slot = 0;
    int phase = 0;
    const float* q = nullptr;
  };
  // Phases after the client's: end of the layer, search for the entries that the worker lacks, fetch of
  // these.
  enum ExtraPhase { kClosePhase = MemoryClient::kPhases, kLookPhase, kFetchPhase, kAllPhases };
  using SlotContexts = std::array<SlotContext, kAllPhases>;

  Impl(const PipelineOptions& pipeline_options, devices::Device* d, devices::KvCache* c, Attach attach)
      : options(pipeline_options),
        device(d),
        cache(c),
        attacher(std::move(attach)),
        accounts(options.shape, static_cast<uint64_t>(devices::StoredKvBytes(
                                    devices::StoredForm(cache->shape().type), options.shape.head_dim))) {}

  absl::Status Prepare();
  absl::Status CreateIndex(Side side, SequenceMemory* memory);
  const SequenceMemory* FindShared(Side side, const SequenceMemory& memory, int* pages) const;
  absl::Status Place(SequenceMemory* memory, bool begun);
  absl::Status PlaceInService(SequenceMemory* memory);
  absl::StatusOr<SequenceMemory*> Open(std::unique_ptr<SequenceMemory> memory, std::span<const int32_t> ids,
                                       bool begun);
  void TakeService();
  void DropService();
  void Grow(SequenceMemory* memory, int pages, std::span<const int32_t> page_ids, bool wait);
  layout::Descriptor Template(const SequenceMemory& memory, const PositionPlan& plan) const;
  const devices::SparseSelection* Select(Row* row);
  void PointHeads(Row& row, int slot);
  void RunPhase(const SlotContext& context, int item, int thread);
  void Look(const SlotContext& context, int item);
  void Fetch(const SlotContext& context);
  void SettleFetches();
  void OpenLayer(const SlotContext& context, int thread);
  void Encode(const SlotContext& context, int item) const;
  void CloseLayer();
  void Settle(const Row& row, uint64_t total_attended);
  MemoryClient* client(int side) const { return side == kInWorker ? inline_client.get() : service.get(); }
  SideNames names() const { return {.worker = device->info().name, .service = service_name}; }

  const PipelineOptions options;
  devices::Device* const device;
  devices::KvCache* const cache;
  Attacher attacher;

  std::unique_ptr<InlineClient> inline_client;
  std::unique_ptr<MemoryClient> service;
  std::string service_name = "memory";
  std::vector<std::unique_ptr<SequenceMemory>> open;

  std::vector<Row> rows;  // [max_queries]
  std::array<std::vector<IndexQuery>, kSides> queries;
  std::array<std::vector<ClientCost>, kSides> query_costs;
  std::array<std::vector<size_t>, kSides> query_rows;  // indexes in rows
  std::vector<SlotContexts> contexts;                  // [slots]
  std::vector<size_t> resident_rows;                   // indexes in rows of resident rows that select
  std::vector<SequenceMemory*> staging;                // sequences whose pages are staged
  std::vector<FetchList> fetch_lists;                  // fetches of the current layer
  int64_t dense_attended = 0;
  bool failed = false;
  uint64_t apply_ns = 0;
  uint64_t fetch_ns = 0;
  std::atomic<uint64_t> ready_ns{0};

  StepAccounts accounts;
  std::vector<StepAccounts::Fetched> fetched;  // fetches of one step
};

namespace {

int RoundedPages(const SequenceMemory& memory) { return devices::PagesFor(memory.max_positions); }

uint64_t BlockBytes(const layout::Descriptor& op) {
  return layout::ResultBlockBytes(layout::kSelectTopK, op.flags, op.k, 0);
}

}  // namespace

absl::Status Pipeline::Impl::Prepare() {
  MNEMO_CHECK(static_cast<int>(options.layers.size()) == options.shape.layers);
  const auto max_queries = static_cast<size_t>(options.max_queries);
  rows.reserve(max_queries);
  for (int side = 0; side < kSides; ++side) {
    queries[side].reserve(max_queries);
    query_costs[side].reserve(max_queries);
    query_rows[side].reserve(max_queries);
  }
  contexts.resize(options.layers.size());
  resident_rows.reserve(max_queries);
  staging.reserve(max_queries);
  fetched.reserve(2 * max_queries);
  fetch_lists.reserve(2 * max_queries * static_cast<size_t>(options.shape.kv_heads));
  MNEMO_ASSIGN_OR_RETURN(inline_client, InlineClient::Create({.shape = options.shape,
                                                              .max_queries = options.max_queries,
                                                              .context_tokens = options.context_tokens,
                                                              .max_indexes = options.max_indexes},
                                                             device));
  if (attacher.configured()) {
    attacher.WaitFirst();
    TakeService();
  }
  return absl::OkStatus();
}

void Pipeline::Impl::TakeService() {
  if (service != nullptr) return;
  service = attacher.Take();
  if (service != nullptr) service_name = service->device();
}

// Moves the service's sequences to the worker. Resident ones are lost.
void Pipeline::Impl::DropService() {
  for (const auto& memory : open) {
    if (memory->side != kInService) continue;
    if (memory->hot != nullptr) {
      memory->lost = true;
      memory->client = nullptr;
      continue;
    }
    // The worker's store has room for the records of all pages and for an index of each open sequence.
    MNEMO_CHECK(CreateIndex(kInWorker, memory.get()).ok());
    accounts.CountFallback(&memory->account, kServiceLost);
  }
  if (service != nullptr) accounts.AddPastAttachment(service->stats());
  service = nullptr;
  attacher.Want("it went or hung");
}

// Finds an open sequence on the same side whose first pages of records are those that `memory` will have.
const SequenceMemory* Pipeline::Impl::FindShared(Side side, const SequenceMemory& memory, int* pages) const {
  const SequenceMemory* best = nullptr;
  if (memory.hot != nullptr) return best;
  for (const auto& other : open) {
    if (other.get() == &memory || other->hot != nullptr || other->side != side ||
        RoundedPages(*other) < RoundedPages(memory) ||
        other->steps.prepare.record_format != memory.steps.prepare.record_format) {
      continue;
    }
    const auto differ =
        std::mismatch(other->ids.begin(), other->ids.end(), memory.ids.begin(), memory.ids.end());
    const int common = static_cast<int>(differ.first - other->ids.begin()) / kPageTokens;
    if (std::min(common, other->taken_pages) <= *pages) continue;
    *pages = std::min(common, other->taken_pages);
    best = other.get();
  }
  return best;
}

absl::Status Pipeline::Impl::CreateIndex(Side side, SequenceMemory* memory) {
  MemoryClient* const where = client(side);
  memory->taken_pages = 0;
  int shared_pages = 0;
  if (const SequenceMemory* source = FindShared(side, *memory, &shared_pages); source != nullptr) {
    absl::StatusOr<IndexHandle> forked = where->Fork(source->index, shared_pages);
    if (!forked.ok()) return forked.status();
    memory->index = *forked;
    memory->taken_pages = shared_pages;
  } else {
    layout::IndexSpec spec{};
    spec.max_tokens = static_cast<uint32_t>(RoundedPages(*memory) * kPageTokens);
    spec.layer_slots = static_cast<uint16_t>(options.shape.layers);
    spec.heads = static_cast<uint16_t>(options.shape.kv_heads);
    spec.dim = static_cast<uint16_t>(options.shape.head_dim);
    spec.record_format = static_cast<uint8_t>(memory->steps.prepare.record_format);
    if (memory->hot != nullptr) spec.kv_format = static_cast<uint8_t>(KvFormat(cache->shape().type));
    MNEMO_ASSIGN_OR_RETURN(memory->index, where->Create(spec));
  }
  memory->side = side;
  memory->client = where;
  return absl::OkStatus();
}

absl::Status Pipeline::Impl::PlaceInService(SequenceMemory* memory) {
  TakeService();
  if (!attacher.configured())
    return FailedPrecondition("attention.placement: this worker has no memory service");
  if (service == nullptr || !service->alive()) {
    return Unavailable("attention.placement: the memory service is not there: {}", attacher.why());
  }
  if (memory->hot != nullptr && !service->keeps_kv())
    return FailedPrecondition("memory.kv_residency: the memory service {} keeps no K and V",
                              service->device());
  const uint32_t kv_format = memory->hot != nullptr ? KvFormat(cache->shape().type) : 0;
  const Needs needs = NeedsOf(memory->steps, options.shape, kv_format, RoundedPages(*memory) * kPageTokens);
  if (const std::string missing = service->Missing(needs); !missing.empty()) {
    return FailedPrecondition("{}: the memory service {} lacks {}",
                              kv_format != 0 ? "memory.kv_residency" : "attention.placement",
                              service->device(), missing);
  }
  const auto entry = static_cast<uint32_t>(memory->steps.apply.entry_tokens);
  const auto most =
      static_cast<uint32_t>(std::min(memory->settings.token_budget, memory->max_positions)) / entry;
  if (most > service->max_k()) {
    return ResourceExhausted(
        "attention.token_budget: {} of {} positions; the memory service selects at most {}",
        memory->settings.token_budget, memory->max_positions, uint64_t{service->max_k()} * entry);
  }
  const absl::Status status = CreateIndex(kInService, memory);
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("attention.placement: {}", std::string(status.message())));
}

absl::Status Pipeline::Impl::Place(SequenceMemory* memory, bool begun) {
  const PlacementRules rules = {
      .any_in_service = options.placement == AttentionSettings::Placement::kMemoryService,
      .has_service = attacher.configured()};
  const PlacementChoice choice = ChoosePlacement(memory->settings.placement, rules, begun);
  if (choice.in_service) {
    const absl::Status status = PlaceInService(memory);
    if (status.ok() || choice.insists) return status;
    accounts.CountFallback(&memory->account, rules.has_service ? FallbackReason(status) : kServiceAbsent);
  }
  return CreateIndex(kInWorker, memory);
}

// Appends pages [taken, pages) at the sequence's client, or at the worker's own if the service is lost
// meanwhile.
void Pipeline::Impl::Grow(SequenceMemory* memory, int pages, std::span<const int32_t> page_ids, bool wait) {
  const CacheSource keys(cache, options.layers, page_ids);
  for (;;) {
    if (pages <= memory->taken_pages && !wait) return;
    const Side side = memory->side;
    ClientCost spent;
    const absl::StatusOr<int> taken = memory->client->Append(
        memory->index, memory->taken_pages, std::max(pages, memory->taken_pages), keys, wait, &spent);
    const int before = memory->taken_pages;
    if (taken.ok()) memory->taken_pages = *taken;
    accounts.ChargeRecords(&memory->account, side, memory->taken_pages - before, spent);
    if (taken.ok()) return;
    MNEMO_CHECK(side == kInService);  // the worker's store cannot fail: it has room for all pages
    DropService();
    if (memory->lost) return;
  }
}

layout::Descriptor Pipeline::Impl::Template(const SequenceMemory& memory, const PositionPlan& plan) const {
  layout::Descriptor op{};
  op.op = layout::kOpScoreSelect;
  op.flags = memory.steps.relevancy.pages_of_64 ? layout::kFlagPages64 : 0;
  op.index_id = memory.index.id;
  op.index_generation = memory.index.generation;
  op.first_head = 0;
  op.heads = static_cast<uint8_t>(options.shape.kv_heads);
  op.group = static_cast<uint8_t>(options.shape.group);
  op.queries = 1;
  op.score_op = static_cast<uint8_t>(memory.steps.relevancy.score_op);
  op.group_op = static_cast<uint8_t>(memory.steps.relevancy.group_op);
  op.select_op = layout::kSelectTopK;
  op.format = static_cast<uint8_t>(memory.steps.prepare.record_format);
  op.begin = static_cast<uint32_t>(plan.begin);
  op.end = static_cast<uint32_t>(plan.end);
  op.k = static_cast<uint32_t>(plan.k);
  op.k1 = static_cast<uint32_t>(plan.k1);
  return op;
}

const devices::SparseSelection* Pipeline::Impl::Select(Row* row) {
  SequenceMemory& memory = *row->memory;
  const PositionPlan& plan = row->plan;
  row->asks = plan.k > 0 && memory.anchor != plan.anchor;
  const int entry = memory.steps.apply.entry_tokens;
  memory.selection = {.first_end = plan.first_end,
                      .tail_begin = plan.tail_begin,
                      .entry_tokens = entry,
                      .heads = memory.heads.data(),
                      .max_entries = plan.k};
  for (devices::TokenSelection& head : memory.heads) head.count = static_cast<uint32_t>(plan.k);
  memory.anchor_k = plan.k;
  if (row->asks) {
    IndexQuery& query = queries[memory.side].emplace_back();
    query.op = Template(memory, plan);
    const auto kv_heads = static_cast<uint64_t>(options.shape.kv_heads);
    query.payload_bytes = kv_heads * layout::QueryBlockBytes(static_cast<uint32_t>(options.shape.group),
                                                             static_cast<uint32_t>(options.shape.head_dim));
    query.result_bytes = kv_heads * BlockBytes(query.op);
    MNEMO_CHECK(query.result_bytes <= (memory.slot_bytes == 0 ? memory.results.size() : memory.slot_bytes));
    query.cost = &query_costs[memory.side].emplace_back();
    row->query = queries[memory.side].size() - 1;
    query_rows[memory.side].push_back(rows.size() - 1);
  }
  PointHeads(*row, 0);
  return &memory.selection;
}

void Pipeline::Impl::PointHeads(Row& row, int slot) {
  SequenceMemory& memory = *row.memory;
  uint8_t* base = memory.results.data() + memory.slot_bytes * static_cast<size_t>(slot);
  const uint64_t block =
      layout::ResultBlockBytes(layout::kSelectTopK, 0, static_cast<uint32_t>(memory.anchor_k), 0);
  for (size_t head = 0; head < memory.heads.size(); ++head) {
    memory.heads[head].ids =
        reinterpret_cast<const uint32_t*>(base + head * block + sizeof(layout::ResultHeader));
    if (memory.hot != nullptr) memory.heads[head].places = memory.places.data() + head * memory.max_k;
  }
  if (row.asks) queries[memory.side][row.query].result = base;
}

// The first host operation: points rows at their result blocks and opens the layer (phase 0) at each client
// that has queries.
void Pipeline::Impl::OpenLayer(const SlotContext& context, int thread) {
  for (Row& row : rows) {
    if (row.memory->slot_bytes != 0 || context.slot == 0) PointHeads(row, context.slot);
  }
  for (int side = 0; side < kSides; ++side) {
    if (!queries[side].empty()) client(side)->Run(context.slot, 0, 0, thread);
  }
}

void Pipeline::Impl::Encode(const SlotContext& context, int item) const {
  const int kv_heads = options.shape.kv_heads;
  int index = item / kv_heads;
  const int side = index < static_cast<int>(queries[kInWorker].size()) ? kInWorker : kInService;
  if (side == kInService) index -= static_cast<int>(queries[kInWorker].size());
  const IndexQuery& query = queries[side][static_cast<size_t>(index)];
  const Row& row = rows[query_rows[side][static_cast<size_t>(index)]];
  const int kv_head = item % kv_heads;
  const auto group = static_cast<uint32_t>(options.shape.group);
  const auto dim = static_cast<uint32_t>(options.shape.head_dim);
  const uint64_t block = layout::QueryBlockBytes(group, dim);
  const size_t head_floats = size_t{group} * dim;
  const float* q = context.q + (static_cast<size_t>(row.row) * static_cast<size_t>(kv_heads) +
                                static_cast<size_t>(kv_head)) *
                                   head_floats;
  memory_device::MakeQueryBlockFast({q, head_floats}, group, dim, query.op.format,
                                    options.shape.softmax_scale, {},
                                    {query.payload + block * static_cast<uint64_t>(kv_head), block});
}

void Pipeline::Impl::RunPhase(const SlotContext& context, int item, int thread) {
  if (context.phase == 0) {
    if (item == 0) {
      OpenLayer(context, thread);
    } else {
      Encode(context, item - 1);
    }
  } else if (context.phase < MemoryClient::kPhases) {
    // The service's items come first: other threads do the worker's own items while this one sends or waits.
    for (int side = kSides - 1; side >= 0; --side) {
      if (queries[side].empty()) continue;
      const int items = client(side)->Items(context.phase);
      if (item < items) {
        client(side)->Run(context.slot, context.phase, item, thread);
        break;
      }
      item -= items;
    }
  } else if (context.phase == kLookPhase) {
    Look(context, item);
  } else if (context.phase == kFetchPhase) {
    Fetch(context);
  } else {
    CloseLayer();
    return;
  }
  ready_ns.store(NowNs(), std::memory_order_relaxed);
}

// Finds the places of the selected entries of one head of one resident row, and the entries that are missing.
void Pipeline::Impl::Look(const SlotContext& context, int item) {
  const int kv_heads = options.shape.kv_heads;
  const auto head = static_cast<size_t>(item % kv_heads);
  SequenceMemory& memory = *rows[resident_rows[static_cast<size_t>(item / kv_heads)]].memory;
  const devices::TokenSelection& selected = memory.heads[head];
  memory.missing[head].clear();
  memory.hot->Look(context.slot, static_cast<int>(head), {selected.ids, selected.count}, memory.local,
                   memory.places.data() + head * memory.max_k, &memory.missing[head]);
}

void Pipeline::Impl::Fetch(const SlotContext& context) {
  const uint64_t begin = NowNs();
  // The missing entries of each selecting row and head come first, then the staged pages.
  fetch_lists.clear();
  const auto kv_heads = static_cast<size_t>(options.shape.kv_heads);
  const auto add = [&](SequenceMemory* memory, size_t head, int width,
                       std::span<const HotCache::Missing> entries) {
    fetch_lists.push_back({.index = memory->index,
                           .kv_head = static_cast<int>(head),
                           .entry_tokens = width,
                           .entries = entries,
                           .fetched_tokens = &memory->fetched_tokens});
  };
  for (const size_t row : resident_rows) {
    SequenceMemory* const memory = rows[row].memory;
    for (size_t head = 0; head < kv_heads; ++head)
      add(memory, head, memory->steps.apply.entry_tokens, memory->missing[head]);
  }
  for (SequenceMemory* const memory : staging) {
    for (size_t head = 0; head < kv_heads; ++head) add(memory, head, kPageTokens, memory->staged);
  }
  LayerFeed feed(cache, options.layers[static_cast<size_t>(context.slot)], fetch_lists);
  if (!service->FetchKv(context.slot, &feed)) failed = true;
  fetch_ns += NowNs() - begin;
}

void Pipeline::Impl::SettleFetches() {
  fetched.clear();
  for (const size_t row : resident_rows) {
    SequenceMemory& memory = *rows[row].memory;
    fetched.push_back({&memory.account, memory.fetched_tokens});
    accounts.CountResidentRow(rows[row].plan.k, memory.steps.apply.entry_tokens, memory.fetched_tokens);
  }
  for (SequenceMemory* memory : staging) fetched.push_back({&memory->account, memory->fetched_tokens});
  accounts.ChargeFetches(fetched, fetch_ns);
}

void Pipeline::Impl::CloseLayer() {
  apply_ns += NowNs() - ready_ns.load(std::memory_order_relaxed);
  for (int side = 0; side < kSides; ++side) {
    if (!queries[side].empty() && !client(side)->Close()) failed = true;
  }
}

void Pipeline::Impl::Settle(const Row& row, uint64_t total_attended) {
  SequenceMemory& memory = *row.memory;
  const int entry = memory.steps.apply.entry_tokens;
  accounts.ChargeRow(&memory.account,
                     {.side = memory.side,
                      .asked = row.asks ? &query_costs[memory.side][row.query] : nullptr,
                      .scored = (row.plan.end - row.plan.begin) / entry,
                      .selected = row.plan.k,
                      .entry_tokens = entry,
                      .attended = row.attended},
                     apply_ns, total_attended);
}

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Create(const PipelineOptions& options,
                                                           devices::Device* device, devices::KvCache* cache,
                                                           Attach attach) {
  auto impl = std::make_unique<Impl>(options, device, cache, std::move(attach));
  MNEMO_RETURN_IF_ERROR(impl->Prepare());
  return std::unique_ptr<Pipeline>(new Pipeline(std::move(impl)));
}

Pipeline::Pipeline(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pipeline::~Pipeline() = default;

const PipelineOptions& Pipeline::options() const { return impl_->options; }

absl::StatusOr<SequenceMemory*> Pipeline::Impl::Open(std::unique_ptr<SequenceMemory> memory,
                                                     std::span<const int32_t> ids, bool begun) {
  const AttentionSettings& settings = memory->settings;
  memory->ids.assign(ids.begin(), ids.begin() + std::min<ptrdiff_t>(memory->decode_begin, std::ssize(ids)));
  MNEMO_RETURN_IF_ERROR(memory->hot != nullptr ? PlaceInService(memory.get()) : Place(memory.get(), begun));
  const auto kv_heads = static_cast<size_t>(options.shape.kv_heads);
  const int max_k =
      std::min(settings.token_budget, memory->max_positions) / memory->steps.apply.entry_tokens + 1;
  const size_t slot_bytes =
      kv_heads * layout::ResultBlockBytes(layout::kSelectTopK, 0, static_cast<uint32_t>(max_k), 0);
  const bool shared = settings.reuse_interval > 1;
  memory->slot_bytes = shared ? slot_bytes : 0;
  memory->results.resize(slot_bytes * (shared ? options.layers.size() : 1));
  memory->heads.resize(kv_heads);
  if (memory->hot != nullptr) {
    memory->max_k = static_cast<size_t>(max_k);
    memory->places.resize(kv_heads * memory->max_k);
    memory->missing.resize(kv_heads);
    for (auto& missing : memory->missing) missing.reserve(memory->max_k);
    memory->staged.reserve(static_cast<size_t>(RoundedPages(*memory)));
  }
  open.push_back(std::move(memory));
  return open.back().get();
}

namespace {

std::unique_ptr<SequenceMemory> NewMemory(const PipelineOptions& options, const AttentionSettings& settings,
                                          int max_positions, int decode_begin) {
  auto memory = std::make_unique<SequenceMemory>();
  memory->settings = settings;
  const methods::Method* const method = methods::FindMethod(settings.method);
  MNEMO_CHECK(method != nullptr);
  memory->account.method = method;
  memory->steps = method->steps(settings, options.methods);
  memory->max_positions = max_positions;
  memory->decode_begin = decode_begin;
  return memory;
}

}  // namespace

absl::StatusOr<SequenceMemory*> Pipeline::Open(const AttentionSettings& settings, int max_positions,
                                               int decode_begin, std::span<const int32_t> ids, bool begun) {
  MNEMO_RETURN_IF_ERROR(CheckSettings(settings, impl_->options.shape));
  return impl_->Open(NewMemory(impl_->options, settings, max_positions, decode_begin), ids, begun);
}

absl::StatusOr<SequenceMemory*> Pipeline::OpenResident(const AttentionSettings& settings, int max_positions,
                                                       int decode_begin, std::span<const int32_t> ids,
                                                       int hot_pages) {
  MNEMO_RETURN_IF_ERROR(CheckSettings(settings, impl_->options.shape));
  if (!impl_->options.kv_in_service)
    return FailedPrecondition("memory.kv_residency: this worker keeps K and V itself");
  auto memory = NewMemory(impl_->options, settings, max_positions, decode_begin);
  const int width = memory->steps.apply.entry_tokens;
  memory->hot =
      std::make_unique<HotCache>(HotCacheShape{.layers = impl_->options.shape.layers,
                                               .kv_heads = impl_->options.shape.kv_heads,
                                               .entry_tokens = width,
                                               .entries = RoundedPages(*memory) * kPageTokens / width,
                                               .pages = hot_pages});
  return impl_->Open(std::move(memory), ids, /*begun=*/false);
}

bool Pipeline::Lost(const SequenceMemory& memory) { return memory.lost; }

void Pipeline::SetHotPages(SequenceMemory* memory, std::span<const int32_t> pages) {
  memory->hot->Reset(pages);
}

int Pipeline::KeptPages(const SequenceMemory& memory) { return memory.kept_pages; }

void Pipeline::CountFallback(std::string_view reason) { impl_->accounts.CountFallback(nullptr, reason); }

absl::Status Pipeline::Keep(SequenceMemory* memory, int computed, std::span<const int32_t> pages) {
  Impl& impl = *impl_;
  const int complete = computed / kPageTokens;
  const CacheSource source(impl.cache, impl.options.layers, pages);
  while (!memory->lost && memory->kept_pages < complete) {
    const uint64_t begin = NowNs();
    ClientCost spent;
    if (!memory->client->StoreKv(memory->index, memory->kept_pages, source, &spent).ok()) {
      impl.DropService();
      break;
    }
    ++memory->kept_pages;
    impl.accounts.ChargeKept(&memory->account, NowNs() - begin, spent);
  }
  // Keys are read during the call, before the page may be freed. Only pages that a scan can reach get
  // records.
  const int needed = std::max(memory->max_positions - 1 - memory->settings.keep_last, 0) / kPageTokens;
  const int wanted = std::min(complete, needed);
  if (!memory->lost) impl.Grow(memory, wanted, pages, /*wait=*/false);
  if (!memory->lost && memory->taken_pages < wanted) impl.Grow(memory, wanted, pages, /*wait=*/true);
  return memory->lost ? Unavailable("the memory service went with the K and V it kept") : absl::OkStatus();
}

void Pipeline::Close(SequenceMemory* memory) {
  if (!memory->lost) memory->client->Free(memory->index);
  const auto found = std::find_if(impl_->open.begin(), impl_->open.end(),
                                  [memory](const auto& other) { return other.get() == memory; });
  MNEMO_CHECK(found != impl_->open.end());
  impl_->open.erase(found);
}

bool Pipeline::Tend() {
  Impl& impl = *impl_;
  const MemoryClient* const before = impl.service.get();
  if (impl.service != nullptr && !impl.service->alive()) impl.DropService();
  impl.TakeService();
  return impl.service.get() != before;
}

bool Pipeline::service_attached() const { return impl_->service != nullptr && impl_->service->alive(); }

void Pipeline::Begin() {
  Impl& impl = *impl_;
  Tend();
  impl.rows.clear();
  impl.resident_rows.clear();
  impl.staging.clear();
  impl.fetch_ns = 0;
  for (int side = 0; side < kSides; ++side) {
    impl.queries[side].clear();
    impl.query_costs[side].clear();
    impl.query_rows[side].clear();
  }
  impl.dense_attended = 0;
  impl.failed = false;
  impl.apply_ns = 0;
}

const devices::SparseSelection* Pipeline::AddRow(SequenceMemory* memory, int row, int position,
                                                 std::span<const int32_t> pages) {
  Impl& impl = *impl_;
  const PositionPlan plan = PlanPosition(memory->settings, memory->steps, position, memory->decode_begin);
  if (plan.dense) return nullptr;
  MNEMO_CHECK(!memory->lost);
  MNEMO_CHECK(static_cast<int>(impl.rows.size()) < impl.options.max_queries);
  Impl::Row& added = impl.rows.emplace_back();
  added.memory = memory;
  added.row = row;
  added.plan = plan;
  added.attended =
      plan.first_end + int64_t{plan.k} * memory->steps.apply.entry_tokens + position + 1 - plan.tail_begin;
  if (plan.k > 0 && memory->anchor != plan.anchor) {
    MNEMO_CHECK(plan.anchor == position);
    impl.Grow(memory, plan.end / kPageTokens, pages, /*wait=*/true);
  }
  if (memory->hot != nullptr) {
    memory->local = pages;
    memory->fetched_tokens = 0;
    impl.resident_rows.push_back(impl.rows.size() - 1);
  }
  return impl.Select(&added);
}

void Pipeline::AddStaged(SequenceMemory* memory, std::span<const StagedPage> pages) {
  memory->fetched_tokens = 0;
  memory->staged.clear();
  for (const StagedPage& staged : pages) {
    MNEMO_CHECK(staged.page < memory->kept_pages);
    memory->staged.push_back({static_cast<uint32_t>(staged.page), int64_t{staged.staging} * kPageTokens});
  }
  if (!pages.empty()) impl_->staging.push_back(memory);
}

void Pipeline::AddDense(int64_t attended) { impl_->dense_attended += attended; }

bool Pipeline::idle() const { return impl_->rows.empty() && impl_->staging.empty(); }

absl::Status Pipeline::Seal() {
  Impl& impl = *impl_;
  const auto lost = [](const SequenceMemory* memory) { return memory->lost; };
  if (std::any_of(impl.staging.begin(), impl.staging.end(), lost) ||
      std::any_of(impl.rows.begin(), impl.rows.end(),
                  [&](const Impl::Row& row) { return lost(row.memory); })) {
    return Unavailable("the memory service went with the K and V it kept");
  }
  for (int side = 0; side < kSides; ++side) {
    if (impl.queries[side].empty()) continue;
    const absl::Status status = impl.client(side) == nullptr ? Unavailable("the memory service went")
                                                             : impl.client(side)->Begin(impl.queries[side]);
    if (status.ok()) continue;
    MNEMO_CHECK(side == kInService);
    impl.DropService();
    return absl::UnavailableError(status.message());
  }
  return absl::OkStatus();
}

absl::Status Pipeline::End() {
  Impl& impl = *impl_;
  if (impl.failed) {
    impl.DropService();
    return Unavailable("the memory service went or hung in a step");
  }
  uint64_t total = static_cast<uint64_t>(impl.dense_attended);
  for (const Impl::Row& row : impl.rows) total += static_cast<uint64_t>(row.attended);
  for (const Impl::Row& row : impl.rows) {
    if (row.asks) row.memory->anchor = row.memory->settings.reuse_interval > 1 ? row.plan.anchor : -1;
    impl.Settle(row, total);
  }
  impl.SettleFetches();
  return absl::OkStatus();
}

void Pipeline::CatchUp(SequenceMemory* memory, int computed, std::span<const int32_t> pages) {
  const int needed = std::max(memory->max_positions - 1 - memory->settings.keep_last, 0) / kPageTokens;
  impl_->Grow(memory, std::min(computed / kPageTokens, needed), pages, /*wait=*/false);
}

model::LayerMemory::Ops Pipeline::OpsOf(int slot, const float* q) {
  Impl& impl = *impl_;
  Ops ops;
  if (idle()) return ops;
  Impl::SlotContexts& contexts = impl.contexts[static_cast<size_t>(slot)];
  for (int phase = 0; phase < Impl::kAllPhases; ++phase) {
    contexts[static_cast<size_t>(phase)] = {.impl = &impl, .slot = slot, .phase = phase, .q = q};
  }
  const auto run = [](void* context, int item, int thread) {
    const auto& slot_context = *static_cast<const Impl::SlotContext*>(context);
    slot_context.impl->RunPhase(slot_context, item, thread);
  };
  const int kv_heads = impl.options.shape.kv_heads;
  if (!impl.resident_rows.empty() || !impl.staging.empty()) {
    ops.fetch[0] = {.count = static_cast<int>(impl.resident_rows.size()) * kv_heads,
                    .run = run,
                    .context = &contexts[Impl::kLookPhase]};
    ops.fetch[1] = {.count = 1, .run = run, .context = &contexts[Impl::kFetchPhase]};
  }
  if (impl.rows.empty()) return ops;
  const size_t asking = impl.queries[kInWorker].size() + impl.queries[kInService].size();
  static_assert(std::tuple_size_v<decltype(Ops::select)> == MemoryClient::kPhases);
  ops.select[0] = {.count = 1 + static_cast<int>(asking) * kv_heads, .run = run, .context = contexts.data()};
  for (int phase = 1; phase < MemoryClient::kPhases; ++phase) {
    int items = 0;
    for (int side = 0; side < kSides; ++side) {
      if (!impl.queries[side].empty()) items += impl.client(side)->Items(phase);
    }
    ops.select[static_cast<size_t>(phase)] = {
        .count = items, .run = run, .context = &contexts[static_cast<size_t>(phase)]};
  }
  ops.after = {.count = 1, .run = run, .context = &contexts[Impl::kClosePhase]};
  return ops;
}

Pipeline::StepCosts Pipeline::CostsOf(const SequenceMemory& memory) {
  StepCosts costs;
  for (size_t kind = 0; kind < kStepKinds; ++kind) {
    const MemoryStepStat& worker = memory.account.costs[kInWorker][kind];
    const MemoryStepStat& service = memory.account.costs[kInService][kind];
    costs.worker[kind] = {worker.time_ns, worker.bytes, worker.count};
    costs.service[kind] = {service.time_ns, service.bytes, service.count};
  }
  return costs;
}

const std::string& Pipeline::service_name() const { return impl_->service_name; }

std::vector<MemoryStepStat> Pipeline::StepsOf(const SequenceMemory& memory) const {
  return StepAccounts::StepsOf(memory.account, impl_->names());
}

int Pipeline::FallbacksOf(const SequenceMemory& memory, std::string* reason) const {
  *reason = memory.account.fallback_reason;
  return memory.account.fallbacks;
}

PipelineStats Pipeline::Stats() const {
  const Impl& impl = *impl_;
  PipelineStats stats;
  stats.service_attached = service_attached();
  if (impl.attacher.configured()) stats.service = impl.service_name;
  for (const auto& memory : impl.open) {
    ++(memory->side == kInWorker ? stats.inline_indexes : stats.service_indexes);
  }
  stats.inline_bytes = impl.inline_client->bytes();
  if (impl.service == nullptr) {
    impl.accounts.FillStats(impl.names(), nullptr, &stats);
  } else {
    const AttachmentStats attachment = impl.service->stats();
    impl.accounts.FillStats(impl.names(), &attachment, &stats);
  }
  return stats;
}

}  // namespace mnemo::memory
