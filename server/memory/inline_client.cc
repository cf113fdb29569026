#include "server/memory/inline_client.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <utility>

#include "devices/base/clock.h"
#include "devices/memory/cpu/cpu_record_memory.h"
#include "devices/memory/cpu/query_batch.h"
#include "devices/memory/index_table.h"
#include "proto/layout/record.h"

namespace mnemo::memory {
namespace {

using Clock = std::chrono::steady_clock;

// Phases of a batch that have a phase of the client to themselves. A batch whose scores do not fit the
// scratch memory at once has more phases; the last phase of the client runs the rest.
constexpr int kBatchPhases = MemoryClient::kPhases - 2;
constexpr uint64_t kMaxScratchBytes = uint64_t{64} << 20;

}  // namespace

struct InlineClient::Impl {
  explicit Impl(const InlineOptions& inline_options, devices::Device* d)
      : options(inline_options), device(d) {}

  absl::Status Prepare();
  absl::StatusOr<IndexHandle> Take(const std::function<layout::Completion(IndexHandle)>& make);
  layout::Descriptor Bulk(layout::Op op, IndexHandle index) const {
    layout::Descriptor descriptor{};
    descriptor.op = static_cast<uint8_t>(op);
    descriptor.index_id = index.id;
    descriptor.index_generation = index.generation;
    return descriptor;
  }
  void RunRest(int thread) {
    for (int phase = kBatchPhases; phase < batch->phases(); ++phase) {
      for (uint32_t item = 0; item < batch->items(phase); ++item) batch->RunItem(phase, item, thread);
    }
  }

  const InlineOptions options;
  devices::Device* const device;
  memory_device::cpu::CpuRecordMemory records;
  std::unique_ptr<memory_device::IndexTable> table;
  std::unique_ptr<memory_device::cpu::QueryBatch> batch;
  uint32_t owner = 0;
  std::vector<uint32_t> free_ids;
  std::vector<uint16_t> generations;
  memory_device::AppendJob job;

  std::span<IndexQuery> queries;
  std::vector<uint8_t> payload;
  std::vector<memory_device::Operation> operations;
  std::vector<layout::Completion> completions;
};

absl::Status InlineClient::Impl::Prepare() {
  const int threads = device->info().threads;
  const MemoryShape& shape = options.shape;
  const auto max_queries = static_cast<uint32_t>(options.max_queries);
  const auto blocks = max_queries * static_cast<uint32_t>(shape.kv_heads);
  const auto tokens = static_cast<uint32_t>((options.context_tokens + layout::kPageTokens - 1) /
                                            layout::kPageTokens * layout::kPageTokens);
  MNEMO_ASSIGN_OR_RETURN(table,
                         memory_device::IndexTable::Create({.max_owners = 1, .threads = threads}, &records));
  const auto max_indexes = static_cast<uint32_t>(options.max_indexes);
  MNEMO_ASSIGN_OR_RETURN(owner, table->AddOwner({.quota_bytes = std::numeric_limits<uint64_t>::max(),
                                                 .max_indexes = max_indexes}));
  const uint64_t scores = uint64_t{blocks} * static_cast<uint64_t>(shape.group) * tokens * sizeof(int16_t);
  MNEMO_ASSIGN_OR_RETURN(
      batch, memory_device::cpu::QueryBatch::Create({.max_operations = max_queries,
                                                     .max_blocks = blocks,
                                                     .max_tokens = tokens,
                                                     .max_group = static_cast<uint32_t>(shape.group),
                                                     .max_k = tokens,
                                                     .threads = threads,
                                                     .scratch_bytes = std::min(scores, kMaxScratchBytes)}));
  generations.resize(max_indexes);
  for (uint32_t id = max_indexes; id-- > 0;) free_ids.push_back(id);
  payload.resize(blocks * layout::QueryBlockBytes(static_cast<uint32_t>(shape.group),
                                                  static_cast<uint32_t>(shape.head_dim)));
  operations.reserve(max_queries);
  completions.resize(max_queries);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<InlineClient>> InlineClient::Create(const InlineOptions& options,
                                                                   devices::Device* device) {
  auto impl = std::make_unique<Impl>(options, device);
  MNEMO_RETURN_IF_ERROR(impl->Prepare());
  return std::unique_ptr<InlineClient>(new InlineClient(std::move(impl)));
}

InlineClient::InlineClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InlineClient::~InlineClient() = default;

int64_t InlineClient::bytes() const {
  return static_cast<int64_t>(impl_->table->Stats(impl_->owner).held_bytes);
}
const std::string& InlineClient::device() const { return impl_->device->info().name; }
uint32_t InlineClient::max_k() const { return static_cast<uint32_t>(impl_->options.context_tokens); }

absl::StatusOr<IndexHandle> InlineClient::Impl::Take(
    const std::function<layout::Completion(IndexHandle)>& make) {
  if (free_ids.empty()) {
    return ResourceExhausted("the worker holds {} indexes; allowed: {}", generations.size(),
                             generations.size());
  }
  const IndexHandle index = {free_ids.back(), generations[free_ids.back()]};
  if (make(index).status != layout::kStatusOk) {
    return ResourceExhausted("the worker's memory for indexes is used up");
  }
  free_ids.pop_back();
  return index;
}

absl::StatusOr<IndexHandle> InlineClient::Create(const layout::IndexSpec& spec) {
  return impl_->Take([&](IndexHandle index) {
    return impl_->table->Create(impl_->owner, impl_->Bulk(layout::kOpCreate, index), spec);
  });
}

absl::StatusOr<IndexHandle> InlineClient::Fork(IndexHandle source, int pages) {
  return impl_->Take([&](IndexHandle index) {
    layout::Descriptor fork = impl_->Bulk(layout::kOpFork, index);
    fork.k1 = source.id;
    fork.end = static_cast<uint32_t>(pages * layout::kPageTokens);
    return impl_->table->Fork(impl_->owner, fork);
  });
}

void InlineClient::Free(IndexHandle index) {
  Impl& impl = *impl_;
  impl.table->Free(impl.owner, impl.Bulk(layout::kOpFree, index));
  ++impl.generations[index.id];
  impl.free_ids.push_back(index.id);
}

absl::StatusOr<int> InlineClient::Append(IndexHandle index, int begin, int end, const KeySource& keys,
                                         bool /*wait*/, ClientCost* cost) {
  if (begin == end) return end;
  Impl& impl = *impl_;
  const uint64_t began_ns = NowNs();
  struct Context {
    const KeySource* keys;
    memory_device::AppendJob* job;
    size_t row_bytes;
  } context = {&keys, &impl.job, sizeof(float) * static_cast<size_t>(impl.options.shape.head_dim)};
  const memory_device::PageKeySource source = {
      .get =
          [](void* argument, uint32_t page, uint32_t slot, uint32_t head, float* scratch) {
            const auto& c = *static_cast<const Context*>(argument);
            c.keys->Read(static_cast<int>(page), static_cast<int>(slot), static_cast<int>(head), scratch);
            return layout::PageKeys{
                .data = scratch, .row_stride_bytes = c.row_bytes, .value_type = layout::kFormatF32};
          },
      .context = &context};
  layout::Descriptor append = impl.Bulk(layout::kOpAppend, index);
  append.layer_slot = layout::kAllLayerSlots;
  append.heads = static_cast<uint8_t>(impl.options.shape.kv_heads);
  append.format = layout::kFormatF32;
  append.begin = static_cast<uint32_t>(begin * layout::kPageTokens);
  append.end = static_cast<uint32_t>(end * layout::kPageTokens);
  if (impl.table->BeginAppend(impl.owner, append, source, &impl.job) != layout::kStatusOk) {
    return ResourceExhausted("the machine has no memory for the index of {} tokens", append.end);
  }
  const devices::Op work = devices::HostOp{.count = static_cast<int>(impl.job.items()),
                                           .run =
                                               [](void* argument, int item, int thread) {
                                                 static_cast<const Context*>(argument)->job->RunItem(
                                                     static_cast<uint32_t>(item), thread);
                                               },
                                           .context = &context};
  impl.device->Run({&work, 1});
  const layout::Completion done = impl.table->EndAppend(&impl.job);
  cost->prepare_ns += NowNs() - began_ns;
  cost->bytes += done.bytes_written;
  return end;
}

absl::Status InlineClient::Begin(std::span<IndexQuery> queries) {
  Impl& impl = *impl_;
  impl.queries = queries;
  impl.operations.clear();
  uint8_t* place = impl.payload.data();
  for (IndexQuery& query : queries) {
    query.payload = place;
    place += query.payload_bytes;
    impl.operations.push_back(
        {.descriptor = query.op, .owner = impl.owner, .payload = query.payload, .result = query.result});
  }
  MNEMO_CHECK(place <= impl.payload.data() + impl.payload.size());
  // Shapes are those of every layer, so that Items is known before the first one opens.
  MNEMO_CHECK(impl.batch->Begin(impl.operations, impl.records) == queries.size());
  return absl::OkStatus();
}

int InlineClient::Items(int phase) const {
  const memory_device::cpu::QueryBatch& batch = *impl_->batch;
  const int own = phase - 1;
  if (own < 0) return 0;
  if (own < kBatchPhases) return own < batch.phases() ? static_cast<int>(batch.items(own)) : 0;
  return own == kBatchPhases && batch.phases() > kBatchPhases ? 1 : 0;
}

void InlineClient::Run(int slot, int phase, int item, int thread) {
  Impl& impl = *impl_;
  if (phase == 0) {
    for (size_t i = 0; i < impl.operations.size(); ++i) {
      impl.operations[i].descriptor.layer_slot = static_cast<uint16_t>(slot);
      impl.operations[i].result = impl.queries[i].result;
    }
    MNEMO_CHECK(impl.batch->Begin(impl.operations, impl.records) == impl.operations.size());
  } else if (phase - 1 < kBatchPhases) {
    impl.batch->RunItem(phase - 1, static_cast<uint32_t>(item), thread);
  } else {
    impl.RunRest(thread);
  }
}

bool InlineClient::Close() {
  Impl& impl = *impl_;
  const auto completions = std::span(impl.completions).first(impl.operations.size());
  impl.batch->Finish(completions);
  const auto threads = static_cast<uint64_t>(impl.device->info().threads);
  for (size_t i = 0; i < completions.size(); ++i) {
    MNEMO_CHECK(completions[i].status == layout::kStatusOk);
    ClientCost& cost = *impl.queries[i].cost;
    // Sums over the threads, which work side by side.
    cost.score_ns += completions[i].score_ns / threads;
    cost.select_ns += completions[i].select_ns / threads;
    cost.bytes += completions[i].bytes_read + completions[i].bytes_written;
  }
  return true;
}

}  // namespace mnemo::memory
