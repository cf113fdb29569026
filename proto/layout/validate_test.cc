#include "proto/layout/validate.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/ring.h"

namespace mnemo::layout {
namespace {

constexpr uint64_t kRegions[] = {1 << 20, 4096};

Limits TestLimits(uint16_t ring_kind) {
  Limits limits;
  limits.granted = NewHello();
  limits.granted.epoch = 3;
  limits.granted.ops = 0xFFFFFFFF;
  limits.granted.formats = 0xFFFFFFFF;
  limits.granted.score_ops = limits.granted.group_ops = limits.granted.select_ops = 0xFF;
  limits.granted.cascade = 1;
  limits.granted.dims = 0xFFFF;
  limits.granted.max_group = 16;
  limits.granted.max_k = 8192;
  limits.granted.max_tokens = 1 << 20;
  limits.granted.max_queries = 8;
  limits.granted.max_heads = 16;
  limits.granted.max_indexes = 100;
  limits.ring_kind = ring_kind;
  limits.next_seq = 77;
  limits.region_bytes = kRegions;
  return limits;
}

IndexInfo TestIndex() {
  return {.exists = true,
          .generation = 5,
          .layer_slots = 4,
          .heads = 3,
          .dim = 64,
          .record_format = kFormatCodes2,
          .kv_format = kFormatF16,
          .max_tokens = 4096,
          .tokens = 1024,
          .kv_tokens = 1030};
}

Descriptor Plain(uint8_t op) {
  Descriptor d{};
  d.op = op;
  d.epoch = 3;
  d.seq = 77;
  d.index_id = 9;
  d.index_generation = 5;
  return d;
}

Descriptor Query() {
  Descriptor d = Plain(kOpScoreSelect);
  d.flags = kFlagRanks;
  d.layer_slot = 3;
  d.first_head = 1;
  d.heads = 2;
  d.group = 3;
  d.queries = 2;
  d.score_op = kScoreDot;
  d.group_op = kGroupMax;
  d.select_op = kSelectTopK;
  d.format = kFormatCodes2;
  d.begin = 4;
  d.end = 1024;
  d.k = 100;
  d.payload_length = 4 * (192 + 64) / 64;
  d.result_offset = 1000;
  d.result_length = 4 * 13;
  return d;
}

Descriptor Append() {
  Descriptor d = Plain(kOpAppend);
  d.layer_slot = kAllLayerSlots;
  d.heads = 3;
  d.format = kFormatBf16;
  d.begin = 1024;
  d.end = 1024 + 64;
  d.payload_length = 4 * 3 * 64 * 64 * 2 / 64;
  return d;
}

Descriptor Gather() {
  Descriptor d = Plain(kOpGather);
  d.layer_slot = 1;
  d.heads = 1;
  d.format = kFormatF16;
  d.k = 20;
  d.payload_length = 2;
  d.result_offset = 100;
  d.result_length = 20 * 256 / 64;
  return d;
}

Verdict Check(const Descriptor& d, const IndexInfo& index = TestIndex()) {
  const bool query = d.op >= kOpScoreSelect;
  IndexInfo source = TestIndex();
  return Validate(d, TestLimits(query ? kRingQuery : kRingBulk), index, source);
}

Verdict Bad(uint16_t status, size_t offset) { return {status, static_cast<uint16_t>(offset)}; }

TEST_CASE("one of each operation is accepted") {
  IndexInfo none = TestIndex();
  none.exists = false;
  CHECK(Check(Query()) == Verdict{});
  CHECK(Check(Append()) == Verdict{});
  CHECK(Check(Gather()) == Verdict{});
  CHECK(Check(Plain(kOpFree)) == Verdict{});
  Descriptor d = Plain(kOpTruncate);
  d.end = 512;
  CHECK(Check(d) == Verdict{});
  d = Plain(kOpFork);
  d.end = 512;
  d.k1 = 4;
  CHECK(Check(d, none) == Verdict{});
  CHECK(Check(d) == Bad(kStatusUnknownIndex, offsetof(Descriptor, index_id)));
  d = Plain(kOpCreate);
  d.format = kFormatCodes8;
  d.payload_length = 1;
  CHECK(Check(d, none) == Verdict{});
  d = Append();
  d.op = kOpKvStore;
  d.format = kFormatF16;
  d.begin = 1030;
  d.end = 1031;
  d.layer_slot = 0;
  d.payload_length = 12;
  CHECK(Check(d) == Verdict{});
  // Three heads of 4 + 4 * 64 bytes.
  IndexInfo scaled = TestIndex();
  scaled.kv_format = d.format = kFormatScaledKeys;
  d.payload_length = 13;
  CHECK(Check(d, scaled) == Verdict{});
  d.payload_length = 12;
  CHECK(Check(d, scaled) == Bad(kStatusBadField, offsetof(Descriptor, payload_length)));
  d = Append();
  d.format = kFormatScaledKeys;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, format)));
  d = Query();
  d.op = kOpScoreGather;
  d.result_length = 4 * (13 + 100 * 256 / 64);
  CHECK(Check(d) == Verdict{});
  d = Query();
  d.k1 = 300;
  CHECK(Check(d) == Verdict{});
  d = Query();
  d.begin = d.end;
  CHECK(Check(d) == Verdict{});
}

TEST_CASE("the bad field is named") {
  struct Case {
    const char* what;
    void (*change)(Descriptor&);
    uint16_t status;
    size_t offset;
  };
#define CASE(field, value, status)                                                                    \
  Case {                                                                                              \
#field " = " #value, [](Descriptor & d) { d.field = value; }, status, offsetof(Descriptor, field) \
  }
  const Case cases[] = {
      CASE(op, 0, kStatusBadField),
      CASE(op, 99, kStatusBadField),
      CASE(flags, 8, kStatusBadField),
      CASE(flags, kFlagPages64, kStatusBadField),
      CASE(epoch, 2, kStatusStaleEpoch),
      CASE(seq, 76, kStatusBadSequence),
      CASE(index_id, 100, kStatusBadField),
      CASE(index_generation, 4, kStatusStaleGeneration),
      CASE(layer_slot, 4, kStatusBadField),
      CASE(layer_slot, kAllLayerSlots, kStatusBadField),
      CASE(first_head, 3, kStatusBadField),
      CASE(heads, 0, kStatusBadField),
      CASE(heads, 3, kStatusBadField),
      CASE(heads, 255, kStatusBadField),
      CASE(group, 0, kStatusBadField),
      CASE(group, 65, kStatusBadField),
      CASE(group, 17, kStatusUnsupported),
      CASE(queries, 0, kStatusBadField),
      CASE(queries, 9, kStatusUnsupported),
      CASE(score_op, 0, kStatusBadField),
      CASE(score_op, kScorePageBound, kStatusBadField),
      CASE(score_op, 200, kStatusBadField),
      CASE(group_op, kGroupNone, kStatusBadField),
      CASE(group_op, 4, kStatusBadField),
      CASE(select_op, 0, kStatusBadField),
      CASE(select_op, 5, kStatusBadField),
      CASE(format, kFormatCodes4, kStatusBadField),
      CASE(format, 0, kStatusBadField),
      CASE(begin, 1025, kStatusBadField),
      CASE(end, 1025, kStatusBadField),
      CASE(end, 0xFFFFFFFF, kStatusBadField),
      CASE(k, 0, kStatusBadField),
      CASE(k, 8193, kStatusUnsupported),
      CASE(k1, 99, kStatusBadField),
      CASE(threshold, -1, kStatusBadField),
      CASE(payload_region, 2, kStatusBadRegion),
      CASE(result_region, 0xFFFF, kStatusBadRegion),
      CASE(payload_offset, 16384 - 15, kStatusBadRegion),
      CASE(payload_offset, 0xFFFFFFFF, kStatusBadRegion),
      CASE(payload_length, 15, kStatusBadField),
      CASE(result_length, 51, kStatusBadField),
      CASE(result_offset, 16384 - 51, kStatusBadRegion),
      CASE(result_offset, 15, kStatusBadRegion),  // overlaps the payload
  };
#undef CASE
  for (const Case& c : cases) {
    Descriptor d = Query();
    c.change(d);
    const Verdict verdict = Check(d);
    INFO(c.what << ": status " << verdict.status << ", detail " << verdict.detail);
    CHECK(verdict == Bad(c.status, c.offset));
  }
}

TEST_CASE("bulk operations are checked against the index") {
  Descriptor d = Append();
  d.begin = 960;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, begin)));
  d = Append();
  d.end = 1100;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, end)));
  d = Append();
  d.end = 8192;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, end)));
  d = Append();
  d.heads = 2;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, heads)));
  d = Append();
  d.payload_length -= 1;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, payload_length)));
  d = Plain(kOpTruncate);
  d.end = 1088;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, end)));
  d = Plain(kOpFree);
  IndexInfo none;
  CHECK(Check(d, none) == Bad(kStatusUnknownIndex, offsetof(Descriptor, index_id)));
  // An operation of the other ring.
  CHECK(Validate(Query(), TestLimits(kRingBulk), TestIndex(), {}) ==
        Bad(kStatusBadField, offsetof(Descriptor, op)));
  // Hostile sizes do not wrap.
  IndexInfo huge = TestIndex();
  huge.layer_slots = 0xFFFE;
  huge.heads = 255;
  huge.dim = 512;
  huge.tokens = 0;
  huge.max_tokens = 0xFFFFFFC0;
  d = Append();
  d.heads = 255;
  d.begin = 0;
  d.end = 0xFFFFFFC0;
  d.format = kFormatF32;
  CHECK(PayloadBytes(d, huge) > uint64_t{1} << 60);
  CHECK(Check(d, huge) == Bad(kStatusBadField, offsetof(Descriptor, payload_length)));
}

TEST_CASE("fields that an operation does not use are zero") {
  for (size_t at = offsetof(Descriptor, layer_slot); at < sizeof(Descriptor); ++at) {
    Descriptor d = Plain(kOpFree);
    reinterpret_cast<uint8_t*>(&d)[at] ^= 1;
    const Verdict verdict = Check(d);
    INFO("byte " << at);
    CHECK(verdict.status == kStatusBadField);
    CHECK((verdict.detail <= at && at < verdict.detail + 4U));
  }
  Descriptor d = Plain(kOpFree);
  d.flags = kFlagRanks;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, flags)));
}

TEST_CASE("selections that need other fields") {
  Descriptor d = Query();
  d.select_op = kSelectLatest;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, score_op)));
  d.score_op = d.group_op = d.group = 0;
  d.payload_length = 0;
  CHECK(Check(d) == Verdict{});
  d = Query();
  d.select_op = kSelectThreshold;
  d.threshold = -4095;
  CHECK(Check(d) == Verdict{});
  d.threshold = -4096;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, threshold)));
  d.group_op = kGroupExp2Sum;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, threshold)));
  d.threshold = 65536;
  CHECK(Check(d) == Verdict{});
  d.group_op = kGroupPlainMax;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, threshold)));
  for (const int32_t threshold : {-32767, 32767}) {
    d.threshold = threshold;
    CHECK(Check(d) == Verdict{});
  }
  d.threshold = -32768;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, threshold)));
  d = Query();
  d.score_op = kScoreReluDot;
  CHECK(Check(d) == Bad(kStatusBadField, offsetof(Descriptor, group_op)));
  d.group_op = kGroupNone;
  CHECK(Check(d) == Verdict{});
  IndexInfo eight = TestIndex();
  eight.record_format = kFormatCodes8;
  d = Query();
  d.format = kFormatCodes8;
  d.select_op = kSelectWeightedSum;
  CHECK(Check(d, eight) == Bad(kStatusBadField, offsetof(Descriptor, group)));
  d.group = 1;
  d.group_op = kGroupExp2Sum;
  d.flags = 0;
  d.k = 0;
  CHECK(Check(d, eight) == Verdict{});
  d = Query();
  d.format = kFormatCodes8;
  d.k1 = 200;
  CHECK(Check(d, eight) == Bad(kStatusBadField, offsetof(Descriptor, k1)));
}

TEST_CASE("accepted descriptors stay inside their regions") {
  std::mt19937_64 random(8);
  size_t accepted = 0;
  for (int n = 0; n < 200000; ++n) {
    Descriptor d = n % 3 == 0 ? Query() : n % 3 == 1 ? Append() : Gather();
    auto* bytes = reinterpret_cast<uint8_t*>(&d);
    for (uint64_t changes = random() % 4; changes > 0; --changes) {
      bytes[random() % sizeof(d)] = static_cast<uint8_t>(random());
    }
    const IndexInfo index = TestIndex();
    if (Check(d, index).status != kStatusOk) {
      continue;
    }
    ++accepted;
    const auto inside = [](uint64_t region, uint64_t offset, uint64_t length, uint64_t need) {
      return region < 2 && need <= length * 64 && offset * 64 + length * 64 <= kRegions[region];
    };
    REQUIRE(inside(d.payload_region, d.payload_offset, d.payload_length, PayloadBytes(d, index)));
    REQUIRE(inside(d.result_region, d.result_offset, d.result_length, ResultBytes(d, index)));
    REQUIRE(d.heads + d.first_head <= 3);
    REQUIRE((d.op == kOpAppend || d.op == kOpKvStore ? d.end <= index.max_tokens : d.end <= index.tokens));
  }
  CHECK(accepted > 1000);
}

TEST_CASE("specifications and listed ids") {
  Descriptor d = Plain(kOpCreate);
  d.format = kFormatCodes2;
  IndexSpec spec{};
  spec.max_tokens = 4096;
  spec.layer_slots = 28;
  spec.heads = 3;
  spec.dim = 64;
  spec.record_format = kFormatCodes2;
  const Limits limits = TestLimits(kRingBulk);
  CHECK(ValidateSpec(d, spec, limits) == Verdict{});
  const auto with = [&](auto change) {
    IndexSpec changed = spec;
    change(changed);
    return ValidateSpec(d, changed, limits);
  };
  CHECK(with([](IndexSpec& s) { s.dim = 96; }) == Bad(kStatusBadPayload, offsetof(IndexSpec, dim)));
  CHECK(with([](IndexSpec& s) { s.max_tokens = 100; }) ==
        Bad(kStatusBadPayload, offsetof(IndexSpec, max_tokens)));
  CHECK(with([](IndexSpec& s) { s.max_tokens = 1 << 21; }) ==
        Bad(kStatusBadPayload, offsetof(IndexSpec, max_tokens)));
  CHECK(with([](IndexSpec& s) { s.layer_slots = 0; }) ==
        Bad(kStatusBadPayload, offsetof(IndexSpec, layer_slots)));
  CHECK(with([](IndexSpec& s) { s.heads = 17; }) == Bad(kStatusBadPayload, offsetof(IndexSpec, heads)));
  CHECK(with([](IndexSpec& s) { s.record_format = 2; }) ==
        Bad(kStatusBadPayload, offsetof(IndexSpec, record_format)));
  CHECK(with([](IndexSpec& s) { s.kv_format = kFormatScaledKeys; }) == Verdict{});
  CHECK(with([](IndexSpec& s) { s.kv_format = 2; }) ==
        Bad(kStatusBadPayload, offsetof(IndexSpec, kv_format)));
  CHECK(with([](IndexSpec& s) { s.reserved[51] = 1; }) == Bad(kStatusBadPayload, 63));
  CHECK(ValidateIds(std::vector<uint32_t>{0, 9, 5}, 10) == Verdict{});
  CHECK(ValidateIds(std::vector<uint32_t>{0, 10, 5}, 10) == Bad(kStatusBadPayload, 4));
}

}  // namespace
}  // namespace mnemo::layout
