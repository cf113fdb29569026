#include "fpga/tests/faults/stand.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <random>

#include "devices/memory/testing/same_results.h"
#include "fpga/card/model/model_port.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"

namespace mnemo::card_faults {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;
using memory_device::IndexTable;
using memory_device::Operation;
using memory_device::testing::SameResults;

namespace {

constexpr uint64_t kHbmBytes = 4 << 20;
constexpr uint64_t kHostBytes = 4 << 20;

std::vector<float> RandomNumbers(std::mt19937& random, size_t count) {
  std::normal_distribution<float> bell;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = bell(random);
  return numbers;
}

}  // namespace

Stand::Stand(const StandOptions& options) : options_(options), random_(static_cast<uint32_t>(options.seed)) {
  memory_device::MemoryDeviceOptions device{.kind = "card", .name = "one"};
  device.max_operations = kOperations;
  device.max_tokens = 1 << 12;
  device.max_k = 256;
  device.max_group = 4;
  device.max_queries = 2;
  device.max_heads = kHeads;
  card::CardDriverOptions card;
  card.kind = "card";
  card.watchdog_cycles = options.watchdog_cycles;
  card.simulated_time = true;
  card.first_index = options.first_index;
  card.direct_bytes = kDirectBytes;
  // A memory that stops keeps a reset from its end, whatever the patience. Other waits end by looks, however
  // little time the host gives.
  const bool stops = options.fault == sim::Fault::kChannelStops || options.fault == sim::Fault::kHostStops;
  card.patience = std::chrono::milliseconds(stops ? 50 : 5000);
  card.make_port = [this]() -> absl::StatusOr<std::unique_ptr<card::CardPort>> {
    const bool first = ports_++ == 0;
    if (options_.over == Over::kModel) {
      MNEMO_ASSIGN_OR_RETURN(auto port, card::model::ModelPort::Make({.channel_bytes = kHbmBytes / 2,
                                                                      .host_bytes = kHostBytes,
                                                                      .direct_bytes = kDirectBytes}));
      port_ = port.get();
      return port;
    }
    MNEMO_ASSIGN_OR_RETURN(auto port,
                           sim::RtlPort::Make({.hbm_bytes = kHbmBytes,
                                               .host_bytes = kHostBytes,
                                               .direct_bytes = kDirectBytes,
                                               .card = {.seed = options_.seed,
                                                        .stall_percent = options_.stall_percent,
                                                        .fault = first ? options_.fault : sim::Fault::kNone,
                                                        .fault_at = options_.fault_at,
                                                        .fault_channel = options_.fault_channel},
                                               .cycles = options_.advance_cycles}));
    port_ = rtl_ = port.get();
    return port;
  };
  auto driver = card::CardDriver::Create(device, std::move(card));
  INFO(driver.status());
  REQUIRE(driver.ok());
  driver_ = *std::move(driver);
  table_ = IndexTable::Create({}, &driver_->memory()).value();
  owner_ = table_->AddOwner({.quota_bytes = 8 << 20, .max_indexes = kIndexes}).value();
  for (uint32_t index = 0; index < kIndexes; ++index) {
    keys_[index] = RandomNumbers(random_, size_t{kHeads} * kTokens * kDim);
    for (uint32_t page = 0; page < kHeads * kPages; ++page) {
      std::vector<uint8_t>& record =
          records_[index].emplace_back(layout::RecordBytes(layout::kFormatCodes2, kDim));
      layout::MakeRecord(
          {keys_[index].data() + size_t{page} * kPageTokens * kDim, kDim * sizeof(float), layout::kFormatF32},
          kDim, layout::kFormatCodes2, record);
    }
  }
}

bool Stand::Fill() {
  layout::IndexSpec spec{};
  spec.max_tokens = kTokens;
  spec.layer_slots = 1;
  spec.heads = kHeads;
  spec.dim = kDim;
  spec.record_format = layout::kFormatCodes2;
  for (uint32_t index = 0; index < kIndexes; ++index) {
    Descriptor d{};
    d.op = layout::kOpCreate;
    d.index_id = index;
    if (table_->Create(owner_, d, spec).status != layout::kStatusOk) return false;
    d.op = layout::kOpAppend;
    d.heads = kHeads;
    d.format = layout::kFormatF32;
    d.end = kTokens;
    if (table_->Append(owner_, d, reinterpret_cast<const uint8_t*>(keys_[index].data())).status !=
        layout::kStatusOk) {
      return false;
    }
  }
  return true;
}

bool Stand::Free() {
  for (uint32_t index = 0; index < kIndexes; ++index) {
    Descriptor d{};
    d.op = layout::kOpFree;
    d.index_id = index;
    if (table_->Free(owner_, d).status != layout::kStatusOk) return false;
  }
  return true;
}

uint64_t Stand::used_beats() {
  uint64_t beats = 0;
  for (uint32_t channel = 0; channel < driver_->shape().channels.size(); ++channel) {
    beats += driver_->memory().used_beats(channel);
  }
  return beats;
}

Query Stand::NewQuery(bool direct) {
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random_() % bound); };
  Query query;
  Descriptor& d = query.d;
  d.op = layout::kOpScoreSelect;
  d.index_id = below(kIndexes);
  d.format = layout::kFormatCodes2;
  d.first_head = static_cast<uint8_t>(below(kHeads));
  d.heads = static_cast<uint8_t>(1 + below(kHeads - d.first_head));
  d.queries = 1;
  d.group = static_cast<uint8_t>(1 + below(4));
  d.flags = static_cast<uint8_t>(direct ? below(2) * layout::kFlagRanks : below(4));
  d.begin = below(kTokens / 2);
  d.end = d.begin + 1 + below(kTokens - d.begin - 1);
  d.k = 1 + below(60);
  d.score_op = layout::kScoreDot;
  d.group_op = below(2) != 0 ? layout::kGroupMax : layout::kGroupPlainMax;
  d.select_op = layout::kSelectTopK;
  if (below(3) == 0) d.k1 = d.k + below(60);
  const size_t payload = layout::QueryBlockBytes(d.group, kDim);
  const size_t result = layout::ResultBlockBytes(d.select_op, d.flags, d.k, kDim);
  query.payload.resize(d.heads * payload);
  query.wanted.resize(d.heads * result);
  query.result.resize(d.heads * result);
  for (uint32_t n = 0; n < d.heads; ++n) {
    layout::MakeQueryBlock(RandomNumbers(random_, size_t{d.group} * kDim), d.group, kDim, d.format, 0.125F,
                           {}, std::span(query.payload).subspan(n * payload, payload));
    std::vector<const uint8_t*> pages;
    for (uint32_t page = 0; page < kPages; ++page) {
      pages.push_back(records_[d.index_id][(d.first_head + n) * kPages + page].data());
    }
    layout::ScoreSelect(d, {d.format, kDim, pages}, query.payload.data() + n * payload,
                        std::span(query.wanted).subspan(n * result, result));
  }
  return query;
}

layout::IndexInfo Stand::Info(uint32_t index_id, uint32_t slot) const {
  return table_->Info(owner_, index_id, slot);
}

void Stand::Pass(uint32_t cycles) {
  if (rtl_ != nullptr) return rtl_->Run(cycles);
  port_->Advance();
}

uint32_t DriverLoad::Submit(uint32_t count) {
  for (uint32_t n = 0; n < count; ++n) {
    auto query = std::make_unique<Query>(stand_->NewQuery(/*direct=*/false));
    query->d.index_generation = stand_->Info(query->d.index_id, 0).generation;
    query->d.seq = static_cast<uint32_t>(queries_.size());
    const Operation operation{query->d, stand_->owner(), query->payload.data(), query->result.data()};
    if (stand_->driver().Submit({&operation, 1}) == 0) return n;
    queries_.push_back(std::move(query));
  }
  return count;
}

uint32_t DriverLoad::Poll() {
  Completion done[Stand::kOperations];
  const size_t count = stand_->driver().Poll(done);
  for (size_t n = 0; n < count; ++n) {
    if (done_ >= queries_.size() || done[n].seq != queries_[done_]->d.seq) {
      ++wrong_;
      continue;
    }
    const Query& query = *queries_[done_++];
    if (done[n].status == layout::kStatusOk &&
        SameResults(query.d, Stand::kDim, query.result, query.wanted)) {
      ++right_;
    } else if (done[n].status == layout::kStatusDeviceFailed) {
      ++failed_;
    } else {
      ++wrong_;
    }
  }
  return static_cast<uint32_t>(count);
}

}  // namespace mnemo::card_faults
