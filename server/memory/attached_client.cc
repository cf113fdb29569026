#include "server/memory/attached_client.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "devices/base/clock.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/record.h"

namespace mnemo::memory {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPageTokens = layout::kPageTokens;
constexpr int kSubmitPhase = 1;
constexpr int kWaitPhase = MemoryClient::kPhases - 1;

// Most entries that a query may select; the results' part of the region has room for them.
constexpr uint32_t kMaxK = 8192;
// Room for keys of appends under way: kPagesUnderWay pages, and kLeastBulkBytes at least.
constexpr uint64_t kLeastBulkBytes = uint64_t{8} << 20;
constexpr uint64_t kPagesUnderWay = 4;
constexpr uint64_t kRegionSlackBytes = 4096;

// Tokens of one head whose K and V one fetch brings, and most fetches under way at once.
constexpr int kFetchTokens = 256;
constexpr uint64_t kFetches = 16;

// Bytes of the keys of one page, for all indexed layers and heads, or of its K and V if these are more.
uint64_t PageBytes(const MemoryShape& shape, uint32_t kv_format) {
  const auto dim = static_cast<uint32_t>(shape.head_dim);
  return layout::PadToUnit(static_cast<uint64_t>(shape.layers) * shape.kv_heads * kPageTokens *
                           std::max(dim * uint64_t{sizeof(float)}, layout::KvTokenBytes(kv_format, dim)));
}

// Bytes of K and V of `tokens` tokens of one head.
uint64_t KvBytes(const AttachOptions& options, uint64_t tokens) {
  return tokens * layout::KvTokenBytes(options.kv_format, static_cast<uint32_t>(options.shape.head_dim));
}

// Bytes of one fetch: the ids sent, and the K and V received.
uint64_t FetchIdBytes() { return layout::PadToUnit(kFetchTokens * sizeof(uint32_t)); }
uint64_t FetchKvBytes(const AttachOptions& options) {
  return layout::PadToUnit(KvBytes(options, kFetchTokens));
}

uint32_t Units(uint64_t bytes) {
  return static_cast<uint32_t>(layout::PadToUnit(bytes) / layout::kUnitBytes);
}

}  // namespace

struct AttachedClient::Impl {
  // State of one index id.
  struct Slot {
    uint16_t generation = 0;
    int appends = 0;  // appends under way
    int stores = 0;   // stores of K and V under way
    uint64_t prepare_ns = 0;
    uint64_t bytes = 0;
  };
  // A bulk operation under way. Operations complete in the order of submission.
  struct Pending {
    layout::Op op = layout::kOpCreate;
    uint32_t id = 0;
    int chunk = -1;  // chunk of the payload area that the operation frees at its end; -1: none
  };

  Impl(const AttachOptions& attach_options, devices::Device* d,
       std::unique_ptr<transport::MemoryAttachment> l)
      : options(attach_options), device(d), attachment(std::move(l)) {}

  absl::Status Fail(absl::string_view why) {
    broken = true;
    return Unavailable("the memory service {} {}", attachment->device_name(), std::string(why));
  }
  absl::Status PlaceFetches();
  // The payload is at `offset` in the chunk. The chunk is free again once an operation with `last` is done.
  absl::Status SubmitBulk(layout::Descriptor op, int chunk, uint64_t payload_bytes, uint64_t offset = 0,
                          bool last = true);
  absl::Status TakeBulk();
  absl::Status WaitBulk();
  absl::Status WaitForRoom();
  absl::StatusOr<IndexHandle> NewIndex(layout::Descriptor op, int chunk, uint64_t payload_bytes);
  absl::Status AppendPage(uint32_t id, int page, const KeySource& keys);
  // Calls work(slot, kv_head, out) for each layer slot and KV head of a page, on the device's threads. `out`
  // has room for `bytes` in the chunk.
  template <class Work>
  void FillChunk(int chunk, uint64_t bytes, const Work& work);
  bool SubmitFetch(int slot, KvFeed* feed, size_t place);
  void SubmitQueries(int slot);
  void WaitQueries();
  bool TakeResults(const layout::Completion& completion, size_t query);

  const AttachOptions options;
  devices::Device* const device;
  const std::unique_ptr<transport::MemoryAttachment> attachment;
  bool broken = false;

  std::vector<Slot> slots;  // [max_indexes]
  std::vector<uint32_t> free_ids;
  uint64_t page_bytes = 0;
  std::vector<int> free_chunks;  // free chunks of the bulk payload area, page_bytes each
  std::vector<Pending> pending;  // a short queue
  bool creating = false;
  uint16_t create_status = 0;

  std::span<IndexQuery> queries;
  std::vector<layout::Descriptor> batch;
  std::vector<const uint8_t*> places;  // addresses of the results in the shared area
  uint64_t submitted_ns = 0;
  std::vector<layout::Completion> completions;
  bool missing = false;
  AttachmentStats stats;

  // Buffers of one fetch, in the areas of queries and results: no query is under way during a fetch.
  struct Fetch {
    uint8_t* ids = nullptr;
    uint32_t ids_units = 0;  // offset in the region
    const uint8_t* kv = nullptr;
    uint32_t kv_units = 0;
    uint64_t bytes = 0;  // bytes of the K and V under way
  };
  std::vector<Fetch> fetches;
};

absl::StatusOr<std::unique_ptr<AttachedClient>> AttachedClient::Create(
    const AttachOptions& options, devices::Device* device,
    std::unique_ptr<transport::MemoryAttachment> attachment) {
  auto impl = std::make_unique<Impl>(options, device, std::move(attachment));
  const layout::AttachHello& granted = impl->attachment->granted();
  const MemoryShape& shape = options.shape;
  // Methods are compared when a sequence is opened. The model's heads are those of every index.
  Needs needs;
  needs.head_dim = shape.head_dim;
  needs.group = shape.group;
  needs.kv_heads = shape.kv_heads;
  if (const std::string missing = MissingOf(needs, granted); !missing.empty())
    return FailedPrecondition("the memory service {} lacks {}", impl->attachment->device_name(), missing);
  impl->slots.resize(granted.max_indexes);
  for (uint32_t id = granted.max_indexes; id-- > 0;) impl->free_ids.push_back(id);
  impl->page_bytes = PageBytes(shape, options.kv_format);
  const uint64_t chunks =
      impl->attachment->payload_area(transport::Ring::kBulk).bytes.size() / impl->page_bytes;
  if (chunks == 0) {
    return FailedPrecondition(
        "the memory service {} shares {} bytes for keys; a page takes {}", impl->attachment->device_name(),
        impl->attachment->payload_area(transport::Ring::kBulk).bytes.size(), impl->page_bytes);
  }
  for (int chunk = static_cast<int>(chunks); chunk-- > 0;) impl->free_chunks.push_back(chunk);
  const size_t credits = impl->attachment->credits(transport::Ring::kQuery);
  impl->batch.reserve(credits);
  impl->places.reserve(credits);
  impl->completions.resize(std::max<size_t>(credits, 64));
  impl->pending.reserve(impl->attachment->credits(transport::Ring::kBulk));
  if (options.kv_format != 0) MNEMO_RETURN_IF_ERROR(impl->PlaceFetches());
  return std::unique_ptr<AttachedClient>(new AttachedClient(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<MemoryClient>> AttachedClient::Attach(const AttachOptions& options,
                                                                     devices::Device* device) {
  const MemoryShape& shape = options.shape;
  const auto blocks = static_cast<uint64_t>(options.max_queries) * shape.kv_heads;
  const uint64_t bulk = std::max(kLeastBulkBytes, kPagesUnderWay * PageBytes(shape, options.kv_format));
  uint64_t query = blocks * layout::QueryBlockBytes(static_cast<uint32_t>(shape.group),
                                                    static_cast<uint32_t>(shape.head_dim));
  uint64_t results = blocks * layout::ResultBlockBytes(layout::kSelectTopK, 0, kMaxK, 0);
  if (options.kv_format != 0) {
    query = std::max(query, kFetches * FetchIdBytes());
    results = std::max(results, kFetches * FetchKvBytes(options));
  }
  transport::AttachOptions attachment;
  attachment.address = options.address;
  attachment.owner = options.owner;
  attachment.timeout = options.timeout;
  attachment.wanted = layout::NewHello();
  attachment.wanted.max_k = kMaxK;
  // Each part begins and ends at a unit; a share is a KiB.
  attachment.bulk_payload_share = static_cast<uint32_t>(bulk / 1024 + 1);
  attachment.query_payload_share = static_cast<uint32_t>(query / 1024 + 1);
  attachment.results_share = static_cast<uint32_t>(results / 1024 + 1);
  attachment.wanted.region_bytes = 1024 * (uint64_t{attachment.bulk_payload_share} +
                                           attachment.query_payload_share + attachment.results_share) +
                                   kRegionSlackBytes;
  MNEMO_ASSIGN_OR_RETURN(std::unique_ptr<transport::MemoryAttachment> made, transport::Attach(attachment));
  if (options.wrap) made = options.wrap(std::move(made));
  return Create(options, device, std::move(made));
}

AttachedClient::AttachedClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AttachedClient::~AttachedClient() = default;

const std::string& AttachedClient::device() const { return impl_->attachment->device_name(); }
bool AttachedClient::alive() const { return !impl_->broken && !impl_->attachment->lost(); }
uint32_t AttachedClient::max_k() const { return impl_->attachment->granted().max_k; }
std::string AttachedClient::Missing(const Needs& needs) const {
  return MissingOf(needs, impl_->attachment->granted());
}
AttachmentStats AttachedClient::stats() const { return impl_->stats; }

absl::Status AttachedClient::Impl::SubmitBulk(layout::Descriptor op, int chunk, uint64_t payload_bytes,
                                              uint64_t offset, bool last) {
  const auto& area = attachment->payload_area(transport::Ring::kBulk);
  if (payload_bytes > 0) {
    op.payload_region = area.region;
    op.payload_offset =
        Units(area.offset_bytes) + Units(page_bytes) * static_cast<uint32_t>(chunk) + Units(offset);
    op.payload_length = Units(payload_bytes);
  }
  const absl::Status status = attachment->Submit(transport::Ring::kBulk, {&op, 1});
  if (!status.ok()) return Fail(status.message());
  pending.push_back({.op = static_cast<layout::Op>(op.op), .id = op.index_id, .chunk = last ? chunk : -1});
  stats.bytes_sent += sizeof(op) + payload_bytes;
  return absl::OkStatus();
}

// Takes the completions of bulk operations.
absl::Status AttachedClient::Impl::TakeBulk() {
  std::array<layout::Completion, 16> taken;
  for (;;) {
    const size_t count = attachment->Poll(transport::Ring::kBulk, taken);
    if (count == 0) return absl::OkStatus();
    stats.bytes_received += count * sizeof(layout::Completion);
    for (size_t i = 0; i < count; ++i) {
      if (pending.empty()) return Fail("answered what was not asked");
      const Pending done = pending.front();
      pending.erase(pending.begin());
      if (done.chunk >= 0) free_chunks.push_back(done.chunk);
      Slot& slot = slots[done.id];
      const uint16_t status = taken[i].status;
      if (done.op == layout::kOpCreate || done.op == layout::kOpFork) {
        create_status = status;
        creating = false;
      } else if (status != layout::kStatusOk) {
        return Fail(fmt::format("refused operation {} with status {}, field at {}", static_cast<int>(done.op),
                                status, taken[i].detail));
      } else if (done.op == layout::kOpAppend) {
        --slot.appends;
        slot.prepare_ns += taken[i].prepare_ns;
        slot.bytes += taken[i].bytes_written;
      } else if (done.op == layout::kOpKvStore) {
        --slot.stores;
        slot.bytes += taken[i].bytes_written;
      } else if (done.op == layout::kOpFree) {
        ++slot.generation;
        free_ids.push_back(done.id);
      }
    }
  }
}

absl::Status AttachedClient::Impl::WaitBulk() {
  const absl::Status status = attachment->Wait(transport::Ring::kBulk, options.timeout);
  if (!status.ok()) return Fail(status.message());
  return TakeBulk();
}

absl::StatusOr<IndexHandle> AttachedClient::Create(const layout::IndexSpec& spec) {
  Impl& impl = *impl_;
  layout::Descriptor op{};
  op.op = layout::kOpCreate;
  op.format = spec.record_format;
  MNEMO_RETURN_IF_ERROR(impl.WaitForRoom());
  const int chunk = impl.free_chunks.back();
  impl.free_chunks.pop_back();
  const auto& area = impl.attachment->payload_area(transport::Ring::kBulk);
  std::memcpy(area.bytes.data() + impl.page_bytes * static_cast<uint64_t>(chunk), &spec, sizeof(spec));
  return impl.NewIndex(op, chunk, sizeof(spec));
}

absl::StatusOr<IndexHandle> AttachedClient::Fork(IndexHandle source, int pages) {
  layout::Descriptor op{};
  op.op = layout::kOpFork;
  op.k1 = source.id;
  op.end = static_cast<uint32_t>(pages * kPageTokens);
  MNEMO_RETURN_IF_ERROR(impl_->WaitForRoom());
  return impl_->NewIndex(op, -1, 0);
}

// Waits until a slot of the bulk ring and a chunk of the payload area are free.
absl::Status AttachedClient::Impl::WaitForRoom() {
  if (broken || attachment->lost())
    return Unavailable("the memory service {} is gone", attachment->device_name());
  MNEMO_RETURN_IF_ERROR(TakeBulk());
  while (free_chunks.empty() || attachment->credits(transport::Ring::kBulk) == 0)
    MNEMO_RETURN_IF_ERROR(WaitBulk());
  return absl::OkStatus();
}

absl::StatusOr<IndexHandle> AttachedClient::Impl::NewIndex(layout::Descriptor op, int chunk,
                                                           uint64_t payload_bytes) {
  if (free_ids.empty()) {
    if (chunk >= 0) free_chunks.push_back(chunk);
    return ResourceExhausted("the memory service {} holds {} indexes of this worker; allowed: {}",
                             attachment->device_name(), slots.size(), slots.size());
  }
  const uint32_t id = free_ids.back();
  free_ids.pop_back();
  op.index_id = id;
  op.index_generation = slots[id].generation;
  MNEMO_RETURN_IF_ERROR(SubmitBulk(op, chunk, payload_bytes));
  creating = true;
  while (creating) MNEMO_RETURN_IF_ERROR(WaitBulk());
  if (create_status != layout::kStatusOk) free_ids.push_back(id);
  if (create_status == layout::kStatusFull || create_status == layout::kStatusDraining) {
    return ResourceExhausted("the memory service {} {}", attachment->device_name(),
                             create_status == layout::kStatusFull ? "is full" : "takes no new indexes");
  }
  if (create_status != layout::kStatusOk)
    return Fail(fmt::format("refused an index with status {}", create_status));
  slots[id].appends = slots[id].stores = 0;
  return IndexHandle{id, slots[id].generation};
}

void AttachedClient::Free(IndexHandle index) {
  Impl& impl = *impl_;
  layout::Descriptor op{};
  op.op = layout::kOpFree;
  op.index_id = index.id;
  op.index_generation = index.generation;
  while (alive() && impl.attachment->credits(transport::Ring::kBulk) == 0) {
    if (!impl.WaitBulk().ok()) return;
  }
  // A service that is gone has freed the index.
  if (alive()) impl.SubmitBulk(op, -1, 0).IgnoreError();
}

template <class Work>
void AttachedClient::Impl::FillChunk(int chunk, uint64_t bytes, const Work& work) {
  struct Context {
    const Work* work;
    uint8_t* out;
    uint64_t bytes;
    int kv_heads;
  } context = {&work,
               attachment->payload_area(transport::Ring::kBulk).bytes.data() +
                   page_bytes * static_cast<uint64_t>(chunk),
               bytes, options.shape.kv_heads};
  const devices::Op copy = devices::HostOp{.count = options.shape.layers * options.shape.kv_heads,
                                           .run =
                                               [](void* argument, int item, int) {
                                                 const auto& c = *static_cast<const Context*>(argument);
                                                 (*c.work)(item / c.kv_heads, item % c.kv_heads,
                                                           c.out + c.bytes * static_cast<uint64_t>(item));
                                               },
                                           .context = &context};
  device->Run({&copy, 1});
}

absl::Status AttachedClient::Impl::AppendPage(uint32_t id, int page, const KeySource& keys) {
  const int chunk = free_chunks.back();
  free_chunks.pop_back();
  const MemoryShape& shape = options.shape;
  const uint64_t head_bytes = uint64_t{kPageTokens} * static_cast<uint64_t>(shape.head_dim) * sizeof(float);
  FillChunk(chunk, head_bytes, [&](int slot, int kv_head, uint8_t* out) {
    keys.Read(page, slot, kv_head, reinterpret_cast<float*>(out));
  });
  layout::Descriptor op{};
  op.op = layout::kOpAppend;
  op.index_id = id;
  op.index_generation = slots[id].generation;
  op.layer_slot = layout::kAllLayerSlots;
  op.heads = static_cast<uint8_t>(shape.kv_heads);
  op.format = layout::kFormatF32;
  op.begin = static_cast<uint32_t>(page * kPageTokens);
  op.end = op.begin + kPageTokens;
  ++slots[id].appends;
  return SubmitBulk(op, chunk, head_bytes * static_cast<uint64_t>(shape.layers * shape.kv_heads));
}

bool AttachedClient::keeps_kv() const { return impl_->options.kv_format != 0; }

// Stores one layer at a time, so that the service can answer queries in between.
absl::Status AttachedClient::StoreKv(IndexHandle index, int page, const KvSource& source, ClientCost* cost) {
  Impl& impl = *impl_;
  const MemoryShape& shape = impl.options.shape;
  MNEMO_RETURN_IF_ERROR(impl.WaitForRoom());
  const int chunk = impl.free_chunks.back();
  impl.free_chunks.pop_back();
  const uint64_t head_bytes = KvBytes(impl.options, kPageTokens);
  impl.FillChunk(chunk, head_bytes,
                 [&](int slot, int kv_head, uint8_t* out) { source.Read(page, slot, kv_head, out); });
  layout::Descriptor op{};
  op.op = layout::kOpKvStore;
  op.index_id = index.id;
  op.index_generation = index.generation;
  op.heads = static_cast<uint8_t>(shape.kv_heads);
  op.format = static_cast<uint8_t>(impl.options.kv_format);
  op.begin = static_cast<uint32_t>(page * kPageTokens);
  op.end = op.begin + kPageTokens;
  const uint64_t layer_bytes = head_bytes * static_cast<uint64_t>(shape.kv_heads);
  Impl::Slot& slot = impl.slots[index.id];
  for (int layer = 0; layer < shape.layers; ++layer) {
    op.layer_slot = static_cast<uint16_t>(layer);
    while (impl.attachment->credits(transport::Ring::kBulk) == 0) MNEMO_RETURN_IF_ERROR(impl.WaitBulk());
    ++slot.stores;
    MNEMO_RETURN_IF_ERROR(impl.SubmitBulk(op, chunk, layer_bytes, layer_bytes * static_cast<uint64_t>(layer),
                                          layer + 1 == shape.layers));
  }
  while (slot.stores > 0) MNEMO_RETURN_IF_ERROR(impl.WaitBulk());
  cost->bytes += std::exchange(slot.bytes, 0);
  return absl::OkStatus();
}

absl::Status AttachedClient::Impl::PlaceFetches() {
  const auto& payload = attachment->payload_area(transport::Ring::kQuery);
  const auto& results = attachment->result_area();
  const uint64_t ids = FetchIdBytes();
  const uint64_t kv = FetchKvBytes(options);
  const uint64_t count = std::min({kFetches, uint64_t{attachment->credits(transport::Ring::kQuery)},
                                   payload.bytes.size() / ids, results.bytes.size() / kv});
  if (count == 0) {
    return FailedPrecondition(
        "the memory service {} shares {} bytes for queries and {} for results; {} and {} are needed to fetch "
        "K and V",
        attachment->device_name(), payload.bytes.size(), results.bytes.size(), ids, kv);
  }
  for (uint64_t i = 0; i < count; ++i) {
    fetches.push_back({.ids = payload.bytes.data() + ids * i,
                       .ids_units = Units(payload.offset_bytes) + Units(ids * i),
                       .kv = results.bytes.data() + kv * i,
                       .kv_units = Units(results.offset_bytes) + Units(kv * i)});
  }
  return absl::OkStatus();
}

// Returns false when nothing is left to fetch.
bool AttachedClient::Impl::SubmitFetch(int slot, KvFeed* feed, size_t place) {
  Fetch& fetch = fetches[place];
  KvFeed::Piece piece;
  if (!feed->Next(kFetchTokens, &piece, reinterpret_cast<uint32_t*>(fetch.ids))) return false;
  const auto tokens = static_cast<uint32_t>(piece.tokens);
  fetch.bytes = KvBytes(options, tokens);
  layout::Descriptor op{};
  op.op = layout::kOpGather;
  op.index_id = piece.index.id;
  op.index_generation = piece.index.generation;
  op.layer_slot = static_cast<uint16_t>(slot);
  op.first_head = static_cast<uint8_t>(piece.kv_head);
  op.heads = 1;
  op.format = static_cast<uint8_t>(options.kv_format);
  op.k = tokens;
  op.payload_region = attachment->payload_area(transport::Ring::kQuery).region;
  op.payload_offset = fetch.ids_units;
  op.payload_length = Units(tokens * sizeof(uint32_t));
  op.result_region = attachment->result_area().region;
  op.result_offset = fetch.kv_units;
  op.result_length = Units(fetch.bytes);
  if (!attachment->Submit(transport::Ring::kQuery, {&op, 1}).ok()) broken = true;
  stats.bytes_sent += sizeof(op) + tokens * sizeof(uint32_t);
  return true;
}

// Fetches are pipelined: the service gathers the next pieces while this thread takes one.
bool AttachedClient::FetchKv(int slot, KvFeed* feed) {
  Impl& impl = *impl_;
  const size_t places = impl.fetches.size();
  size_t submitted = 0;
  size_t taken = 0;
  bool more = !impl.missing;
  while (!impl.missing && !impl.broken) {
    while (more && !impl.broken && submitted - taken < places) {
      more = impl.SubmitFetch(slot, feed, submitted % places);
      if (more) ++submitted;
    }
    if (impl.broken || taken == submitted) break;
    layout::Completion completion;
    if (impl.attachment->Poll(transport::Ring::kQuery, {&completion, 1}) == 0) {
      if (!impl.attachment->Wait(transport::Ring::kQuery, impl.options.timeout).ok()) impl.broken = true;
      continue;
    }
    if (completion.status != layout::kStatusOk) {
      impl.broken = true;
      break;
    }
    const Impl::Fetch& fetch = impl.fetches[taken++ % places];
    impl.stats.bytes_received += sizeof(completion) + fetch.bytes;
    feed->Take(fetch.kv);
  }
  if (impl.broken) impl.missing = true;
  return !impl.missing;
}

absl::StatusOr<int> AttachedClient::Append(IndexHandle index, int begin, int end, const KeySource& keys,
                                           bool wait, ClientCost* cost) {
  Impl& impl = *impl_;
  if (!alive()) return Unavailable("the memory service {} is gone", device());
  MNEMO_RETURN_IF_ERROR(impl.TakeBulk());
  int page = begin;
  for (; page < end; ++page) {
    while (wait && (impl.free_chunks.empty() || impl.attachment->credits(transport::Ring::kBulk) == 0)) {
      MNEMO_RETURN_IF_ERROR(impl.WaitBulk());
    }
    if (impl.free_chunks.empty() || impl.attachment->credits(transport::Ring::kBulk) == 0) break;
    MNEMO_RETURN_IF_ERROR(impl.AppendPage(index.id, page, keys));
  }
  Impl::Slot& slot = impl.slots[index.id];
  while (wait && slot.appends > 0) MNEMO_RETURN_IF_ERROR(impl.WaitBulk());
  cost->prepare_ns += std::exchange(slot.prepare_ns, 0);
  cost->bytes += std::exchange(slot.bytes, 0);
  return page;
}

absl::Status AttachedClient::Begin(std::span<IndexQuery> queries) {
  Impl& impl = *impl_;
  impl.queries = queries;
  impl.batch.clear();
  impl.places.clear();
  impl.missing = false;
  if (!alive()) return Unavailable("the memory service {} is gone", device());
  if (queries.size() > impl.attachment->credits(transport::Ring::kQuery)) {
    return Unavailable("the memory service {} takes {} queries at once; {} are asked for", device(),
                       impl.attachment->credits(transport::Ring::kQuery), queries.size());
  }
  const auto& payload = impl.attachment->payload_area(transport::Ring::kQuery);
  const auto& result = impl.attachment->result_area();
  uint64_t payload_bytes = 0;
  uint64_t result_bytes = 0;
  for (IndexQuery& query : queries) {
    query.payload = payload.bytes.data() + payload_bytes;
    impl.places.push_back(result.bytes.data() + result_bytes);
    layout::Descriptor& op = impl.batch.emplace_back(query.op);
    op.payload_region = payload.region;
    op.payload_offset = Units(payload.offset_bytes) + Units(payload_bytes);
    op.payload_length = Units(query.payload_bytes);
    op.result_region = result.region;
    op.result_offset = Units(result.offset_bytes) + Units(result_bytes);
    op.result_length = Units(query.result_bytes);
    payload_bytes += layout::PadToUnit(query.payload_bytes);
    result_bytes += layout::PadToUnit(query.result_bytes);
  }
  if (payload_bytes > payload.bytes.size() || result_bytes > result.bytes.size()) {
    return Unavailable(
        "the memory service {} shares {} bytes for queries and {} for results; {} and {} are needed",
        device(), payload.bytes.size(), result.bytes.size(), payload_bytes, result_bytes);
  }
  return absl::OkStatus();
}

int AttachedClient::Items(int phase) const { return phase == kSubmitPhase || phase == kWaitPhase ? 1 : 0; }

void AttachedClient::Run(int slot, int phase, int, int) {
  if (phase == kSubmitPhase) impl_->SubmitQueries(slot);
  if (phase == kWaitPhase) impl_->WaitQueries();
}

void AttachedClient::Impl::SubmitQueries(int slot) {
  if (missing || broken) return;
  for (layout::Descriptor& op : batch) op.layer_slot = static_cast<uint16_t>(slot);
  submitted_ns = NowNs();
  missing = !attachment->Submit(transport::Ring::kQuery, batch).ok();
  for (const IndexQuery& query : queries)
    stats.bytes_sent += sizeof(layout::Descriptor) + query.payload_bytes;
}

void AttachedClient::Impl::WaitQueries() {
  size_t done = 0;
  while (!missing && !broken && done < queries.size()) {
    size_t count =
        attachment->Poll(transport::Ring::kQuery, std::span(completions).first(queries.size() - done));
    if (count == 0) {
      missing = !attachment->Wait(transport::Ring::kQuery, options.timeout).ok();
      continue;
    }
    for (size_t i = 0; i < count && !missing; ++i, ++done) missing = !TakeResults(completions[i], done);
  }
  if (!missing && !broken) {
    stats.round_trips.Observe(NowNs() - submitted_ns);
    return;
  }
  // The result of this step is discarded, but its attention still runs: give it lists of valid entries.
  broken = missing = true;
  for (const IndexQuery& query : queries) {
    const uint64_t block = query.result_bytes / static_cast<uint64_t>(options.shape.kv_heads);
    const uint32_t first = query.op.begin / layout::EntryTokens(query.op.format, query.op.flags);
    for (int head = 0; head < options.shape.kv_heads; ++head) {
      auto* ids = reinterpret_cast<uint32_t*>(query.result + block * static_cast<uint64_t>(head) +
                                              sizeof(layout::ResultHeader));
      for (uint32_t i = 0; i < query.op.k; ++i) ids[i] = first + i;
    }
  }
}

// Copies the results out of the shared area once, and checks the copy: k ascending entries within the range.
bool AttachedClient::Impl::TakeResults(const layout::Completion& completion, size_t index) {
  const IndexQuery& query = queries[index];
  if (completion.status != layout::kStatusOk) return false;
  std::memcpy(query.result, places[index], query.result_bytes);
  stats.bytes_received += sizeof(completion) + query.result_bytes;
  const uint64_t block = query.result_bytes / static_cast<uint64_t>(options.shape.kv_heads);
  const uint32_t entry = layout::EntryTokens(query.op.format, query.op.flags);
  const uint32_t first = query.op.begin / entry;
  const uint32_t last = query.op.end / entry;
  for (int head = 0; head < options.shape.kv_heads; ++head) {
    const uint8_t* at = query.result + block * static_cast<uint64_t>(head);
    layout::ResultHeader header;
    std::memcpy(&header, at, sizeof(header));
    if (header.count != query.op.k) return false;
    const auto* ids = reinterpret_cast<const uint32_t*>(at + sizeof(header));
    uint32_t bad = ids[0] < first || ids[query.op.k - 1] >= last ? 1 : 0;
    for (uint32_t i = 1; i < query.op.k; ++i) bad |= ids[i] <= ids[i - 1] ? 1U : 0U;
    if (bad != 0) return false;
  }
  query.cost->score_ns += completion.score_ns;
  query.cost->select_ns += completion.select_ns;
  query.cost->bytes +=
      sizeof(completion) + query.result_bytes + query.payload_bytes + sizeof(layout::Descriptor);
  return true;
}

bool AttachedClient::Close() { return !impl_->missing; }

}  // namespace mnemo::memory
