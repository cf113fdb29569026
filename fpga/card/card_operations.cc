// The operations of a card's driver: from operations to descriptors of the card, and from its completions to
// answers.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "devices/memory/gather.h"
#include "fpga/card/card_driver.h"
#include "proto/layout/card.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::card {

using layout::Completion;
using layout::Descriptor;
using memory_device::GatherOffset;
using memory_device::HeadValues;
using memory_device::Operation;
using std::chrono::steady_clock;

namespace {

uint32_t SaturatedSum(uint32_t a, uint32_t b) { return a > UINT32_MAX - b ? UINT32_MAX : a + b; }

uint32_t Nanoseconds(steady_clock::time_point since) {
  const auto took = std::chrono::nanoseconds(steady_clock::now() - since).count();
  return static_cast<uint32_t>(std::min<int64_t>(took, UINT32_MAX));
}

// Blocks that a part may have: those that fit half of the area, so that the card works on one part while the
// other half is filled; at least one.
uint64_t BlocksThatFit(uint64_t area, uint64_t block) {
  return block == 0 ? UINT64_MAX : std::max<uint64_t>(area / 2 / block, 1);
}

}  // namespace

Completion CardDriver::AnswerOf(const Descriptor& d, uint16_t status, uint16_t detail) const {
  Completion answer{};
  answer.index_id = d.index_id;
  answer.energy_uj = layout::kEnergyUnknown;
  answer.status = status;
  answer.detail = detail;
  answer.seq = d.seq;
  return answer;
}

bool CardDriver::Check(Taken* taken, const CardIndexState* index) const {
  const Descriptor& d = taken->operation.descriptor;
  const auto refuse = [&](uint16_t status, size_t detail) {
    taken->answer = AnswerOf(d, status, static_cast<uint16_t>(detail));
    return false;
  };
  if (index == nullptr) return refuse(layout::kStatusUnknownIndex, offsetof(Descriptor, index_id));
  if (index->generation != d.index_generation) {
    return refuse(layout::kStatusStaleGeneration, offsetof(Descriptor, index_generation));
  }
  const layout::IndexSpec& spec = index->at.spec;
  if (d.layer_slot >= spec.layer_slots) {
    return refuse(layout::kStatusBadField, offsetof(Descriptor, layer_slot));
  }
  if (d.heads == 0 || d.first_head + d.heads > spec.heads) {
    return refuse(layout::kStatusBadField, offsetof(Descriptor, heads));
  }
  if (d.k > caps_.max_k) return refuse(layout::kStatusUnsupported, offsetof(Descriptor, k));
  if (d.op == layout::kOpGather) return true;
  if (d.format != spec.record_format) return refuse(layout::kStatusBadField, offsetof(Descriptor, format));
  if (d.begin > d.end || d.end > index->tokens[d.layer_slot] ||
      (d.op == layout::kOpScoreGather && d.end > index->kv_tokens[d.layer_slot])) {
    return refuse(layout::kStatusBadField, offsetof(Descriptor, end));
  }
  if (d.select_op == layout::kSelectLatest) return true;
  if (d.group == 0 || d.group > caps_.max_group) {
    return refuse(layout::kStatusUnsupported, offsetof(Descriptor, group));
  }
  // The index table grants it only what fits; the memory beside the records may be full all the same.
  if (!index->number.has_value()) return refuse(layout::kStatusFull, layout::kNoDetail);
  return true;
}

void CardDriver::Take(const Operation& operation) {
  const Descriptor& d = operation.descriptor;
  Taken& taken = taken_.emplace_back();
  taken.operation = operation;
  const CardIndexState* const index = memory_.Find({operation.owner, d.index_id});
  if (!Check(&taken, index)) {
    taken.ready = true;
    return;
  }
  taken.answer = AnswerOf(d, layout::kStatusOk, layout::kNoDetail);
  taken.answer.watermark = index->tokens[d.layer_slot];
  taken.on_card = d.op != layout::kOpGather && d.select_op != layout::kSelectLatest;
  if (taken.on_card) taken.blocks = uint32_t{d.heads} * d.queries;
}

void CardDriver::Push() {
  if (failed_ || taken_.empty()) return;
  Taken& newest = taken_.back();
  if (newest.pushed == newest.blocks) return;
  const CardIndexState* const index =
      memory_.Find({newest.operation.owner, newest.operation.descriptor.index_id});
  MNEMO_CHECK(index != nullptr && index->number.has_value());  // the table holds what is under way
  while (newest.pushed < newest.blocks && PushPart(&newest, *index)) {
  }
}

Descriptor CardDriver::DescriptorOf(const Taken& taken, const CardIndexState& index, uint32_t positions,
                                    uint32_t heads) const {
  Descriptor d = taken.operation.descriptor;
  const uint32_t entries = (d.end - d.begin) / layout::EntryTokens(d.format, d.flags);
  d.op = layout::kOpScoreSelect;
  d.flags = FlagsForCard(d.flags);
  d.index_id = *index.number;
  d.first_head = static_cast<uint8_t>(d.first_head + taken.pushed % taken.operation.descriptor.heads);
  d.heads = static_cast<uint8_t>(heads);
  d.queries = static_cast<uint8_t>(positions);
  if (d.k1 != 0) d.k1 = std::min(d.k1, std::max(d.k, entries));
  d.payload_region = 0;
  d.result_region = 1;
  return d;
}

bool CardDriver::PushPart(Taken* taken, const CardIndexState& index) {
  const Descriptor& whole = taken->operation.descriptor;
  const uint32_t dim = index.at.spec.dim;
  const uint64_t query_bytes = layout::QueryBlockBytes(whole.group, dim);
  const auto block_bytes = static_cast<uint32_t>(
      layout::ResultBlockBytes(whole.select_op, FlagsForCard(whole.flags), whole.k, dim));
  const uint64_t fit =
      std::min(BlocksThatFit(payloads_.bytes(), query_bytes), BlocksThatFit(results_.bytes(), block_bytes));
  // Whole positions if one fits, else heads of one position.
  const uint32_t heads_left = whole.heads - taken->pushed % whole.heads;
  const bool whole_positions = fit >= whole.heads && heads_left == whole.heads;
  const auto heads = static_cast<uint32_t>(std::min<uint64_t>(fit, heads_left));
  const auto positions = static_cast<uint32_t>(
      whole_positions ? std::min<uint64_t>(fit / whole.heads, (taken->blocks - taken->pushed) / whole.heads)
                      : 1);
  const uint32_t blocks = positions * heads;
  if (!queue_.HasRoom()) return false;
  Part part{.of = taken,
            .descriptor = DescriptorOf(*taken, index, positions, heads),
            .payload_bytes = blocks * query_bytes,
            .result_bytes = uint64_t{blocks} * block_bytes,
            .block_bytes = block_bytes};
  if (!payloads_.HasRoom(part.payload_bytes) || !results_.HasRoom(part.result_bytes)) return false;
  const uint64_t payload = payloads_.Allocate(part.payload_bytes);
  part.results = results_.Allocate(part.result_bytes);
  std::memcpy(port_->host_memory().data() + parts_.payloads + payload,
              taken->operation.payload + taken->pushed * query_bytes, part.payload_bytes);
  part.descriptor.payload_offset = static_cast<uint32_t>(payload / layout::kUnitBytes);
  part.descriptor.payload_length = static_cast<uint32_t>(part.payload_bytes / layout::kUnitBytes);
  part.descriptor.result_offset = static_cast<uint32_t>(part.results / layout::kUnitBytes);
  part.descriptor.result_length = static_cast<uint32_t>(part.result_bytes / layout::kUnitBytes);
  queue_.Push(part.descriptor);
  under_way_.push_back(part);
  taken->pushed += blocks;
  return true;
}

bool CardDriver::Collect() {
  bool any = false;
  while (!under_way_.empty()) {
    const absl::StatusOr<std::optional<Completion>> completion = queue_.Take();
    if (!completion.ok()) {
      Fail(completion.status());
      return true;
    }
    if (!completion->has_value()) break;
    any = true;
    silent_polls_ = 0;
    const Part part = under_way_.front();
    if (const absl::Status status = FinishPart(part, **completion); !status.ok()) {
      Fail(status);
      return true;
    }
    under_way_.pop_front();
    payloads_.Release(part.payload_bytes);
    results_.Release(part.result_bytes);
  }
  if (!any) return false;
  Push();
  if (const absl::Status status = queue_.Ring(); !status.ok()) Fail(status);
  return true;
}

absl::Status CardDriver::FinishPart(const Part& part, const Completion& completion) {
  Taken& taken = *part.of;
  if (completion.index_id != part.descriptor.index_id) {
    return Internal("completion of the card: index {}, expected {}", completion.index_id,
                    part.descriptor.index_id);
  }
  switch (completion.status) {
    case layout::kStatusOk:
      MNEMO_RETURN_IF_ERROR(CopyResults(part, completion));
      break;
    case layout::kStatusBadField:
    case layout::kStatusUnsupported:
      // The driver checks the same fields, so only a bound of the card's own can be meant.
      if (taken.answer.status == layout::kStatusOk) {
        taken.answer = AnswerOf(taken.operation.descriptor, completion.status, completion.detail);
      }
      break;
    default:
      return Internal("completion of the card: status {}, detail {}", completion.status, completion.detail);
  }
  taken.answered += part.descriptor.heads * part.descriptor.queries;
  taken.ready = taken.answered == taken.blocks;
  return absl::OkStatus();
}

absl::Status CardDriver::CopyResults(const Part& part, const Completion& completion) {
  Taken& taken = *part.of;
  const Descriptor& whole = taken.operation.descriptor;
  const CardIndexState* const index = memory_.Find({taken.operation.owner, whole.index_id});
  MNEMO_CHECK(index != nullptr);
  const uint64_t to_bytes =
      layout::ResultBlockBytes(whole.select_op, whole.flags, whole.k, index->at.spec.dim);
  const std::span<const uint8_t> results =
      port_->host_memory().subspan(parts_.results + part.results, part.result_bytes);
  const uint32_t blocks = uint32_t{part.descriptor.heads} * part.descriptor.queries;
  uint64_t count = 0;
  for (uint32_t n = 0; n < blocks; ++n) {
    const uint32_t block = taken.answered + n;
    const auto bytes = results.subspan(uint64_t{n} * part.block_bytes, part.block_bytes);
    if (whole.select_op == layout::kSelectWeightedSum) {
      MNEMO_ASSIGN_OR_RETURN(const uint32_t of_block,
                             CopySum(whole, bytes, taken.operation.result + block * to_bytes));
      count += of_block;
      taken.answer.bytes_written += to_bytes;
      continue;
    }
    MNEMO_RETURN_IF_ERROR(ReadBlock(whole, bytes, &block_));
    count += block_.ids.size();
    taken.answer.bytes_written += WriteBlock(whole, &block_, taken.operation.result + block * to_bytes);
    if (whole.op == layout::kOpScoreGather) {
      ids_ = block_.ids;
      GatherBlock(&taken, *index, block);
    }
  }
  if (completion.count != count) {
    return Internal("completion of the card: count {}, its results have {}", completion.count, count);
  }
  AddUp(part, completion);
  return absl::OkStatus();
}

void CardDriver::AddUp(const Part& part, const Completion& completion) {
  Completion& answer = part.of->answer;
  if (answer.status != layout::kStatusOk) return;  // another part was refused
  answer.count += completion.count;
  answer.score_ns = SaturatedSum(answer.score_ns, completion.score_ns);
  answer.select_ns = SaturatedSum(answer.select_ns, completion.select_ns);
  answer.bytes_read += completion.bytes_read;
  const std::optional<uint32_t> energy = EnergyOf(part, completion);
  if (!energy.has_value()) return;
  // The largest value says that nothing is known.
  const uint32_t before = answer.energy_uj == layout::kEnergyUnknown ? 0 : answer.energy_uj;
  answer.energy_uj = std::min(SaturatedSum(before, *energy), UINT32_MAX - 1);
}

std::optional<uint32_t> CardDriver::EnergyOf(const Part& part, const Completion& completion) const {
  const uint64_t time_ns = uint64_t{completion.score_ns} + completion.select_ns;
  if (has_power_) {
    const std::optional<double> watts = port_->watts();
    return watts.has_value() ? std::optional(MicrojoulesOf(time_ns, *watts)) : std::nullopt;
  }
  if (!card_.energy.has_value()) return std::nullopt;
  const CardWork work{.time_ns = time_ns,
                      .hbm_bytes = completion.bytes_read,
                      .pcie_bytes = part.payload_bytes + completion.bytes_written,
                      .beats = completion.bytes_read / layout::kCardBeatBytes};
  return MicrojoulesOf(work, *card_.energy);
}

void CardDriver::GatherBlock(Taken* taken, const CardIndexState& index, uint32_t block) {
  const Descriptor& d = taken->operation.descriptor;
  const auto start = steady_clock::now();
  const HeadValues values =
      HeadValues::Of(index.at, index.kv_pages, d.layer_slot, d.first_head + block % d.heads);
  GatherSelected(
      values, ids_,
      taken->operation.result + GatherOffset(d, uint32_t{d.heads} * d.queries, block, index.at.spec));
  taken->answer.gather_ns = SaturatedSum(taken->answer.gather_ns, Nanoseconds(start));
}

void CardDriver::Gather(Taken* taken, const CardIndexState& index) {
  const Descriptor& d = taken->operation.descriptor;
  const auto start = steady_clock::now();
  ids_.resize(d.k);
  for (uint32_t head = 0; head < d.heads; ++head) {
    const HeadValues values = HeadValues::Of(index.at, index.kv_pages, d.layer_slot, d.first_head + head);
    uint8_t* const out = taken->operation.result + GatherOffset(d, d.heads, head, index.at.spec);
    const memory_device::GatherAnswer answer =
        GatherListed(values, index.kv_tokens[d.layer_slot], taken->operation.payload, head, ids_, out);
    if (answer.status != layout::kStatusOk) {
      taken->answer.status = answer.status;
      taken->answer.detail = answer.detail;
      break;
    }
    taken->answer.count += d.k;
  }
  taken->answer.gather_ns = Nanoseconds(start);
}

void CardDriver::RunInSoftware(Taken* taken) {
  const Operation& operation = taken->operation;
  const Descriptor& d = operation.descriptor;
  taken->ready = true;
  const CardIndexState* const index = memory_.Find({operation.owner, d.index_id});
  MNEMO_CHECK(index != nullptr);  // the table holds it
  if (d.op == layout::kOpGather) return Gather(taken, *index);
  const CheckedBlock latest = LatestBlock(d);
  const uint64_t bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, index->at.spec.dim);
  for (uint32_t block = 0; block < uint32_t{d.heads} * d.queries; ++block) {
    CheckedBlock copy = latest;
    taken->answer.bytes_written += WriteBlock(d, &copy, operation.result + block * bytes);
    taken->answer.count += static_cast<uint32_t>(latest.ids.size());
    if (d.op == layout::kOpScoreGather) {
      ids_ = latest.ids;
      GatherBlock(taken, *index, block);
    }
  }
}

bool CardDriver::FinishOldest() {
  if (taken_.empty()) return false;
  Taken& oldest = taken_.front();
  if (!oldest.ready && !oldest.on_card) RunInSoftware(&oldest);
  return oldest.ready;
}

}  // namespace mnemo::card
