#include "server/memory/inline_client.h"

#include <atomic>
#include <chrono>
#include <map>

#include "fpga/layout/quantise.h"
#include "fpga/layout/record.h"
#include "fpga/layout/reference.h"

namespace mnemo::memory {
namespace {
uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
}  // namespace

struct InlineClient::Impl {
  struct IndexData {
    layout::IndexSpec spec;
    std::vector<std::vector<uint8_t>> extents;
  };
  InlineOptions options;
  devices::Device* device = nullptr;
  std::map<uint32_t, IndexData> indexes;
  uint32_t next = 1;
  int64_t bytes = 0;
  std::span<IndexQuery> queries;
  std::vector<uint8_t> payload;
  std::atomic<uint64_t> score_ns{0};
};

absl::StatusOr<std::unique_ptr<InlineClient>> InlineClient::Create(const InlineOptions& options,
                                                                   devices::Device* device) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->device = device;
  return std::unique_ptr<InlineClient>(new InlineClient(std::move(impl)));
}
InlineClient::InlineClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InlineClient::~InlineClient() = default;
int64_t InlineClient::bytes() const { return impl_->bytes; }
const std::string& InlineClient::device() const { return impl_->device->info().name; }
uint32_t InlineClient::max_k() const { return 1U << 20; }
absl::StatusOr<IndexHandle> InlineClient::Create(const layout::IndexSpec& spec) {
  impl_->indexes[impl_->next].spec = spec;
  return IndexHandle{impl_->next++, 0};
}
void InlineClient::Free(IndexHandle index) { impl_->indexes.erase(index.id); }

absl::StatusOr<int> InlineClient::Append(IndexHandle index, int begin, int end, const KeySource& keys, bool,
                                         ClientCost* cost) {
  if (begin == end) return end;
  Impl::IndexData& data = impl_->indexes.at(index.id);
  const uint64_t began = NowNs();
  const auto& spec = data.spec;
  data.extents.resize(end);
  struct Context {
    Impl::IndexData* data;
    const KeySource* keys;
    int begin;
  } context{&data, &keys, begin};
  const uint64_t bytes = layout::ExtentBytes(spec.record_format, spec.dim, spec.heads, spec.layer_slots);
  for (int page = begin; page < end; ++page) data.extents[page].resize(bytes);
  devices::HostOp op;
  op.count = (end - begin) * spec.layer_slots * spec.heads;
  op.context = &context;
  op.run = [](void* c, int item, int) {
    auto& x = *static_cast<Context*>(c);
    const auto& s = x.data->spec;
    const int head = item % s.heads;
    const int slot = item / s.heads % s.layer_slots;
    const int page = x.begin + item / s.heads / s.layer_slots;
    std::vector<float> buffer(64 * s.dim);
    x.keys->Read(page, slot, head, buffer.data());
    layout::MakeRecord({buffer.data(), size_t{4} * s.dim, layout::kFormatF32}, s.dim, s.record_format,
                       std::span(x.data->extents[page])
                           .subspan(layout::RecordOffset(s.record_format, s.dim, s.heads, slot, head),
                                    layout::RecordBytes(s.record_format, s.dim)));
  };
  const devices::Op list = op;
  impl_->device->Run({&list, 1});
  cost->prepare_ns += NowNs() - began;
  cost->bytes += bytes * (end - begin);
  return end;
}

absl::Status InlineClient::Begin(std::span<IndexQuery> queries) {
  impl_->queries = queries;
  uint64_t bytes = 0;
  for (const IndexQuery& q : queries) bytes += q.payload_bytes;
  impl_->payload.resize(bytes);
  bytes = 0;
  for (IndexQuery& q : queries) {
    q.payload = impl_->payload.data() + bytes;
    bytes += q.payload_bytes;
  }
  return absl::OkStatus();
}
int InlineClient::Items(int phase) const {
  return phase == 1 ? static_cast<int>(impl_->queries.size()) * impl_->options.shape.kv_heads : 0;
}
void InlineClient::Run(int slot, int phase, int item, int) {
  if (phase == 0) return;
  const uint64_t began = NowNs();
  const int heads = impl_->options.shape.kv_heads;
  IndexQuery& q = impl_->queries[item / heads];
  const int head = item % heads;
  Impl::IndexData& data = impl_->indexes.at(q.op.index_id);
  std::vector<const uint8_t*> records;
  for (auto& e : data.extents)
    records.push_back(e.data() +
                      layout::RecordOffset(data.spec.record_format, data.spec.dim, heads, slot, head));
  const uint64_t payload = q.payload_bytes / heads;
  const uint64_t result = q.result_bytes / heads;
  layout::ScoreSelect(q.op, {data.spec.record_format, data.spec.dim, records}, q.payload + payload * head,
                      {q.result + result * head, result});
  impl_->score_ns += NowNs() - began;
}
bool InlineClient::Close() {
  for (IndexQuery& q : impl_->queries) q.cost->score_ns += impl_->score_ns / impl_->queries.size();
  impl_->score_ns = 0;
  return true;
}

}  // namespace mnemo::memory
