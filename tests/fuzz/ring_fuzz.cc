// A hostile worker: any bytes in ring headers, descriptors and payloads of an attachment, between turns of
// the service's work on it. Nothing outside the region may be touched, every operation is answered, and all
// resources are freed at the end.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "devices/cpu/index_kernels.h"
#include "devices/memory/cpu/cpu_record_memory.h"
#include "devices/memory/index_table.h"
#include "devices/transport/service_attachment.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"
#include "server/memory_service/attachment.h"

// The kernels are for GCC alone: records stay as they are on the wire.
namespace mnemo::devices::cpu {
namespace {
void MakeRecord(const void* keys, size_t row_stride_bytes, uint32_t value_type, uint32_t dim, uint32_t format,
                uint8_t* record, size_t record_bytes) {
  layout::MakeRecord({keys, row_stride_bytes, value_type}, dim, format, {record, record_bytes});
}
const IndexKernels kKernels = {.isa = "baseline", .make_record = MakeRecord};
}  // namespace
const IndexKernels* FindIndexKernels(const char*) { return &kKernels; }
BlockLayout BlockOf(uint32_t format, uint32_t dim) { return {.bytes = layout::RecordBytes(format, dim)}; }
void StoreBlock(const uint8_t* record, uint32_t format, uint32_t dim, uint8_t* block) {
  std::memcpy(block, record, layout::RecordBytes(format, dim));
}
}  // namespace mnemo::devices::cpu

namespace {

using namespace mnemo;  // NOLINT(google-build-using-namespace)
using layout::Descriptor;
using transport::Ring;

void Require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// Memory of this process; nobody at the other end.
class LooseChannel final : public transport::Channel {
 public:
  explicit LooseChannel(std::span<std::byte> memory) : memory_(memory) {}
  std::span<std::byte> memory() const override { return memory_; }
  absl::Status Write(uint64_t offset_bytes, uint64_t length_bytes) override {
    Require(offset_bytes <= memory_.size() && length_bytes <= memory_.size() - offset_bytes);
    return absl::OkStatus();
  }
  absl::Status Read(uint64_t, uint64_t) override { return absl::OkStatus(); }
  absl::Status Fence() override { return absl::OkStatus(); }
  absl::Status Wake() override { return absl::OkStatus(); }
  void Progress() override {}
  bool PrepareSleep(std::span<pollfd, 2>) override { return false; }
  bool lost(bool) const override { return false; }

 private:
  std::span<std::byte> memory_;
};

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t Byte() { return empty() ? 0 : data_[at_++]; }
  uint32_t Word() {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | Byte();
    return word;
  }
  void Fill(void* to, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) static_cast<uint8_t*>(to)[i] = Byte();
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

// Reads all that an operation may read and writes all that it may write.
layout::Completion CarryOut(const memory_device::Operation& operation, const layout::IndexInfo& info) {
  const uint64_t payload_bytes = layout::PayloadBytes(operation.descriptor, info);
  uint8_t sum = 0;
  for (uint64_t i = 0; i < payload_bytes; ++i) sum = static_cast<uint8_t>(sum + operation.payload[i]);
  std::memset(operation.result, sum, layout::ResultBytes(operation.descriptor, info));
  layout::Completion done{};
  done.index_id = operation.descriptor.index_id;
  done.seq = operation.descriptor.seq;
  return done;
}

// The table stays from run to run, as a service's does; an attachment is new each time.
struct Service {
  memory_device::cpu::CpuRecordMemory records;
  std::unique_ptr<memory_device::IndexTable> table;
  memory_service::PlaneCounters counters;

  Service() {
    auto made = memory_device::IndexTable::Create({.capacity_bytes = 32 << 20, .max_owners = 1}, &records);
    Require(made.ok());
    table = std::move(*made);
  }
};

layout::AttachHello Granted() {
  layout::AttachHello granted = layout::NewHello();
  granted.ops = granted.formats = 0xFFFFFFFF;
  granted.score_ops = granted.group_ops = granted.select_ops = 0xFF;
  granted.cascade = 1;
  granted.dims = 0x3F0;  // 16 to 512
  granted.max_group = 16;
  granted.max_k = 8192;
  granted.max_tokens = 4096;
  granted.max_queries = 4;
  granted.max_heads = 8;
  granted.epoch = 1;
  granted.max_indexes = 4;
  granted.quota_bytes = 4 << 20;
  granted.region_bytes = 64 << 10;
  granted.bulk_slots = granted.query_slots = 8;
  granted.regions = 1;
  return granted;
}

// Writes a descriptor as a worker may: wholly random, or with the parts right that a fuzzer would not guess.
void PutDescriptor(Input& input, std::span<std::byte> memory, const transport::RegionPlan& plan,
                   uint32_t* heads, uint32_t* seqs) {
  const int ring = input.Byte() % 2;
  Descriptor d{};
  input.Fill(&d, std::min<size_t>(sizeof d, input.Byte() % 65));
  const uint8_t op = input.Byte();
  if (op % 4 != 0) {
    d.op = static_cast<uint8_t>(ring == 0 ? 1 + op / 4 % 6 : 16 + op / 4 % 3);
    d.epoch = 1;
    d.seq = seqs[ring]++;
    d.index_id %= 4;
  }
  if (d.op == layout::kOpCreate && op % 4 != 1) {  // with a specification that may be right
    layout::IndexSpec spec{};
    spec.max_tokens = 64 * (1 + input.Byte() % 8);
    spec.layer_slots = static_cast<uint16_t>(1 + input.Byte() % 2);
    spec.heads = static_cast<uint16_t>(1 + input.Byte() % 2);
    spec.dim = static_cast<uint16_t>(16 << input.Byte() % 2);
    spec.record_format = static_cast<uint8_t>(1 + input.Byte() % 5);
    spec.kv_format = input.Byte() % 2 == 0 ? 0 : layout::kFormatF16;
    std::memcpy(memory.data() + plan.data, &spec, sizeof spec);
    d = {.op = d.op,
         .epoch = d.epoch,
         .seq = d.seq,
         .index_id = d.index_id,
         .index_generation = static_cast<uint16_t>(input.Byte() % 2),
         .format = spec.record_format,
         .payload_length = 1};
  } else if (op % 4 == 2) {  // one that fits what may have been created
    d = {.op = d.op, .epoch = 1, .seq = d.seq, .index_id = d.index_id};
    d.index_generation = input.Byte() % 2;
    const uint32_t pages = input.Byte() % 4;
    if (d.op == layout::kOpFork || d.op == layout::kOpTruncate) {
      d.end = 64 * pages;
      d.k1 = d.op == layout::kOpFork ? input.Byte() % 4 : 0;
    } else if (d.op != layout::kOpFree) {
      d.layer_slot = ring == 0 ? layout::kAllLayerSlots : input.Byte() % 2;
      d.heads = static_cast<uint8_t>(1 + input.Byte() % 2);
      d.payload_offset = input.Byte();
      d.payload_length = 128 + input.Byte() * 2;
      d.format = ring == 0 ? layout::kFormatF16 : static_cast<uint8_t>(1 + input.Byte() % 3);
      d.begin = d.op == layout::kOpGather ? 0 : 64 * (input.Byte() % 4);
      d.end = d.op == layout::kOpGather ? 0 : d.begin + 64 * pages;
    }
    if (ring == 1) {
      d.k = 1 + input.Byte() % 64;
      d.result_offset = 640;
      d.result_length = input.Byte();
      if (d.op == layout::kOpGather) {
        d.format = layout::kFormatF16;
      } else {
        d.group = d.queries = 1;
        d.score_op = layout::kScoreDot;
        d.group_op = layout::kGroupMax;
        d.select_op = layout::kSelectTopK;
      }
    }
  }
  const uint64_t slot = heads[ring] % plan.slots[ring];
  std::memcpy(memory.data() + plan.requests[ring] + sizeof(layout::RingHeader) + slot * 64, &d, sizeof d);
  ++heads[ring];
  std::memcpy(memory.data() + plan.requests[ring] + offsetof(layout::RingHeader, head), &heads[ring], 4);
}

// Finishes the first `count` operations under way; they may have been taken turns ago.
void FinishSome(Service& service, memory_service::Attachment& attachment, size_t count,
                memory_service::QueryWork* work) {
  count = std::min(count, work->operations.size());
  for (const memory_device::Operation& operation : std::span(work->operations).first(count)) {
    const layout::IndexInfo info =
        service.table->Info(operation.owner, operation.descriptor.index_id, operation.descriptor.layer_slot);
    Require(info.exists);
    attachment.Finish(operation, CarryOut(operation, info));
  }
  work->operations.erase(work->operations.begin(), work->operations.begin() + static_cast<ptrdiff_t>(count));
  work->origins.erase(work->origins.begin(), work->origins.begin() + static_cast<ptrdiff_t>(count));
}

bool Turn(Service& service, memory_service::Attachment& attachment, size_t finished,
          memory_service::QueryWork* work) {
  attachment.TakeQueries(8, work);
  FinishSome(service, attachment, finished, work);
  bool worked = false;
  return attachment.CompleteQueries().ok() &&
         attachment.WorkOnBulk(std::chrono::milliseconds(5), &worked).ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Service service;
  Input input(data, size);
  const layout::AttachHello granted = Granted();
  const transport::RegionPlan plan = transport::PlanRegion(granted);
  // A heap copy of the exact length, so that an access outside is seen.
  const std::unique_ptr<std::byte[]> bytes(new std::byte[plan.total_bytes]());
  const std::span<std::byte> memory(bytes.get(), plan.total_bytes);
  auto link = std::make_unique<transport::ServiceAttachment>(transport::Attached{"fuzz", 0, granted},
                                                             std::make_unique<LooseChannel>(memory));
  auto made = memory_service::Attachment::Create(std::move(link), service.table.get(), &service.counters);
  Require(made.ok());
  memory_service::Attachment& attachment = **made;
  memory_service::QueryWork work;
  uint32_t heads[2] = {0, 0};
  uint32_t seqs[2] = {transport::kFirstSeq, transport::kFirstSeq};
  while (!input.empty()) {
    const uint8_t what = input.Byte();
    if (what < 140) {
      PutDescriptor(input, memory, plan, heads, seqs);
    } else if (what < 190) {  // payload
      const size_t at = input.Word() % (plan.total_bytes - plan.data - 64);
      input.Fill(bytes.get() + plan.data + at / 64 * (what % 2 == 0 ? 0 : 64), 64);
    } else if (what < 200) {  // anything in the rings
      const size_t at = input.Word() % (plan.data - 4);
      input.Fill(bytes.get() + at / 4 * 4, 4);
    } else {  // a worker that takes its completions
      for (int ring = 0; ring < 2; ++ring) {
        std::memcpy(bytes.get() + plan.completions[ring] + offsetof(layout::RingHeader, tail),
                    bytes.get() + plan.completions[ring] + offsetof(layout::RingHeader, head), 4);
      }
    }
    if (what % 3 == 0 && !Turn(service, attachment, what % 5, &work)) {
      break;
    }
  }
  FinishSome(service, attachment, work.operations.size(), &work);
  made->reset();
  return 0;
}
