// Any bytes as a descriptor, its payload and the records it scans. An accepted descriptor is carried out on a
// small index, inside the room that the validation promised.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/reference.h"
#include "proto/layout/ring.h"
#include "proto/layout/validate.h"

namespace {

using namespace mnemo::layout;  // NOLINT(google-build-using-namespace)

constexpr uint32_t kTokens = 128;
constexpr uint64_t kRegions[] = {64 * 64, 1024 * 64};

// Bytes of the input, repeated where it is too short.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  void Fill(void* to, size_t bytes) {
    auto* out = static_cast<uint8_t*>(to);
    for (size_t i = 0; i < bytes; ++i) {
      out[i] = data_[at_++ % size_];
    }
  }
  uint8_t Byte() { return data_[at_++ % size_]; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

Limits AllLimits(const Descriptor& descriptor) {
  Limits limits;
  limits.granted = NewHello();
  limits.granted.ops = limits.granted.formats = 0xFFFFFFFF;
  limits.granted.score_ops = limits.granted.group_ops = limits.granted.select_ops = 0xFF;
  limits.granted.cascade = 1;
  limits.granted.dims = 0xFFFF;
  limits.granted.max_group = 64;
  limits.granted.max_k = 1000;
  limits.granted.max_tokens = 4096;
  limits.granted.max_queries = 4;
  limits.granted.max_heads = 4;
  limits.granted.max_indexes = 16;
  limits.region_bytes = kRegions;
  // The code only compares these fields; setting them spares the fuzzer the guessing.
  limits.granted.epoch = descriptor.epoch;
  limits.next_seq = descriptor.seq;
  limits.ring_kind = descriptor.op >= kOpScoreSelect ? kRingQuery : kRingBulk;
  return limits;
}

void Require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void CarryOut(const Descriptor& op, const IndexInfo& info, Input& input) {
  const uint64_t record_bytes = RecordBytes(info.record_format, info.dim);
  std::vector<uint8_t> records(kTokens / kPageTokens * record_bytes);
  input.Fill(records.data(), records.size());
  std::vector<const uint8_t*> at;
  for (uint32_t p = 0; p < kTokens / kPageTokens; ++p) {
    at.push_back(records.data() + p * record_bytes);
  }
  std::vector<uint8_t> payload(PayloadBytes(op, info));
  input.Fill(payload.data(), payload.size());
  std::vector<uint8_t> results(ResultBlockBytes(op.select_op, op.flags, op.k, info.dim));
  for (uint32_t block = 0; block < uint32_t{op.queries} * op.heads; ++block) {
    ScoreSelect(op, {info.record_format, info.dim, at},
                payload.data() + block * QueryBlockBytes(op.group, info.dim), results);
    ResultHeader header;
    std::memcpy(&header, results.data(), sizeof(header));
    if (op.select_op == kSelectWeightedSum) {
      continue;
    }
    Require(header.count <= op.k && header.count <= header.candidates);
    const uint32_t entry_tokens = EntryTokens(op.format, op.flags);
    for (uint32_t n = 0; n < header.count; ++n) {
      uint32_t id;
      std::memcpy(&id, results.data() + sizeof(header) + size_t{4} * n, 4);
      Require(id >= op.begin / entry_tokens && id < op.end / entry_tokens);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < sizeof(Descriptor) + 8) {
    return 0;
  }
  Input input(data, size);
  Descriptor op;
  input.Fill(&op, sizeof(op));
  IndexInfo info;
  info.exists = input.Byte() % 8 != 0;
  info.generation = op.index_generation;
  info.layer_slots = 1 + input.Byte() % 3;
  info.heads = 1 + input.Byte() % 4;
  info.dim = static_cast<uint16_t>(16 << input.Byte() % 3);
  info.record_format = 1 + input.Byte() % 5;
  info.kv_format = input.Byte() % 2 == 0 ? 0 : kFormatF16;
  info.max_tokens = 4096;
  info.tokens = info.kv_tokens = kTokens;
  const Limits limits = AllLimits(op);
  const Verdict verdict = Validate(op, limits, info, info);
  Require((verdict.status == kStatusOk) == (verdict.detail == kNoDetail));
  Require(verdict.status == kStatusOk || verdict.detail < sizeof(Descriptor));
  if (verdict.status == kStatusOk && (op.op == kOpScoreSelect || op.op == kOpScoreGather)) {
    CarryOut(op, info, input);
  }
  IndexSpec spec;
  input.Fill(&spec, sizeof(spec));
  (void)ValidateSpec(op, spec, limits);
  return 0;
}
