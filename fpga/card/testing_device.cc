#include "fpga/card/testing_device.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <utility>

#include "fpga/card/block.h"
#include "proto/layout/card.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/reference.h"

namespace mnemo::card {

using layout::Completion;
using layout::Descriptor;
using layout::kCardBeatBytes;
using layout::kPageTokens;

namespace {

constexpr uint64_t kQuotaBytes = uint64_t{1} << 30;
constexpr uint32_t kMaxIndexes = 64;
// Calls without news after which a card is taken for hung.
constexpr int kMostCalls = 400;

std::vector<float> RandomKeys(size_t count, std::mt19937& random) {
  std::normal_distribution<float> bell;
  const bool ties = random() % 4 == 0;
  std::vector<float> keys(count);
  for (float& key : keys) key = ties ? static_cast<float>(random() % 2) : bell(random);
  return keys;
}

}  // namespace

layout::IndexSpec SpecOf(uint32_t format, uint32_t dim, uint32_t pages, uint32_t slots, uint32_t heads) {
  layout::IndexSpec spec{};
  spec.max_tokens = pages * kPageTokens;
  spec.layer_slots = static_cast<uint16_t>(slots);
  spec.heads = static_cast<uint16_t>(heads);
  spec.dim = static_cast<uint16_t>(dim);
  spec.record_format = static_cast<uint8_t>(format);
  return spec;
}

model::ModelOptions TestDevice::SmallModel() {
  model::ModelOptions model;
  model.shape.channels = 2;
  model.channel_bytes = 256 << 10;
  model.host_bytes = 1 << 20;
  return model;
}

memory_device::MemoryDeviceOptions TestDevice::SmallOptions() {
  memory_device::MemoryDeviceOptions options{.kind = "card-model", .name = "one", .max_operations = 8};
  options.max_tokens = 1 << 14;
  options.max_k = 256;
  return options;
}

CardDriverOptions TestDevice::OnPort(MakePort make_port) {
  CardDriverOptions card;
  card.kind = "card-model";
  card.make_port = std::move(make_port);
  card.patience = std::chrono::milliseconds(5);
  return card;
}

TestDevice::TestDevice(const model::ModelOptions& model, const memory_device::MemoryDeviceOptions& options,
                       CardDriverOptions card) {
  MakePort make_port = std::move(card.make_port);
  if (!make_port) {
    make_port = [model]() -> absl::StatusOr<std::unique_ptr<CardPort>> {
      return model::ModelPort::Make(model);
    };
  }
  card.make_port = [this, make_port]() {
    absl::StatusOr<std::unique_ptr<CardPort>> port = make_port();
    if (port.ok()) port_ = port->get();
    return port;
  };
  auto driver = CardDriver::Create(options, std::move(card));
  REQUIRE(driver.ok());
  driver_ = *std::move(driver);
  memory_ = std::make_unique<OvercommittedMemory>(&driver_->memory());
  table_ = memory_device::IndexTable::Create({}, memory_.get()).value();
  owner_ = table_->AddOwner({.quota_bytes = kQuotaBytes, .max_indexes = kMaxIndexes}).value();
  free_list_beats_ = driver_->memory().free_list_beats();
  free_numbers_ = driver_->memory().free_numbers();
}

uint16_t TestDevice::Create(uint32_t id, const layout::IndexSpec& spec) {
  Descriptor d{};
  d.op = layout::kOpCreate;
  d.index_id = id;
  d.index_generation = static_cast<uint16_t>(random());
  const uint16_t status = table_->Create(owner_, d, spec).status;
  if (status == layout::kStatusOk) {
    StoredIndex index{.spec = spec, .generation = d.index_generation, .columns = {}};
    index.columns.resize(size_t{spec.layer_slots} * spec.heads);
    stored_[id] = std::move(index);
  }
  return status;
}

uint16_t TestDevice::Append(uint32_t id, uint32_t pages) {
  StoredIndex& index = stored_.at(id);
  const uint32_t dim = index.spec.dim;
  const uint32_t tokens = pages * kPageTokens;
  const std::vector<float> keys = RandomKeys(index.columns.size() * tokens * dim, random);
  Descriptor d{};
  d.op = layout::kOpAppend;
  d.index_id = id;
  d.index_generation = index.generation;
  d.layer_slot = layout::kAllLayerSlots;
  d.heads = static_cast<uint8_t>(index.spec.heads);
  d.format = layout::kFormatF32;
  d.begin = index.tokens();
  d.end = d.begin + tokens;
  const uint16_t begun = table_->BeginAppend(owner_, d, reinterpret_cast<const uint8_t*>(keys.data()), &job_);
  if (begun != layout::kStatusOk) return begun;
  for (uint32_t item = 0; item < job_.items(); ++item) job_.RunItem(item, 0);
  Completion done{};
  for (int calls = 0; !table_->TryEndAppend(&job_, &done); ++calls) {
    if (calls == kMostCalls) return layout::kStatusDeviceFailed;
  }
  if (done.status != layout::kStatusOk) return done.status;
  for (size_t column = 0; column < index.columns.size(); ++column) {
    for (uint32_t page = 0; page < pages; ++page) {
      std::vector<uint8_t> record(layout::RecordBytes(index.spec.record_format, dim));
      layout::MakeRecord({keys.data() + (column * tokens + size_t{page} * kPageTokens) * dim,
                          dim * sizeof(float), layout::kFormatF32},
                         dim, index.spec.record_format, record);
      index.columns[column].push_back(std::move(record));
    }
  }
  return done.status;
}

uint16_t TestDevice::Fork(uint32_t id, uint32_t from, uint32_t pages) {
  Descriptor d{};
  d.op = layout::kOpFork;
  d.index_id = id;
  d.index_generation = static_cast<uint16_t>(random());
  d.k1 = from;
  d.end = pages * kPageTokens;
  const uint16_t status = table_->Fork(owner_, d).status;
  if (status != layout::kStatusOk) return status;
  StoredIndex index = stored_.at(from);
  index.generation = d.index_generation;
  for (auto& column : index.columns) column.resize(pages);
  stored_[id] = std::move(index);
  return status;
}

uint16_t TestDevice::Truncate(uint32_t id, uint32_t pages) {
  StoredIndex& index = stored_.at(id);
  Descriptor d{};
  d.op = layout::kOpTruncate;
  d.index_id = id;
  d.index_generation = index.generation;
  d.end = pages * kPageTokens;
  const uint16_t status = table_->Truncate(owner_, d).status;
  if (status == layout::kStatusOk) {
    for (auto& column : index.columns) column.resize(pages);
  }
  return status;
}

uint16_t TestDevice::Free(uint32_t id) {
  Descriptor d{};
  d.op = layout::kOpFree;
  d.index_id = id;
  d.index_generation = stored_.at(id).generation;
  const uint16_t status = table_->Free(owner_, d).status;
  if (status == layout::kStatusOk) stored_.erase(id);
  return status;
}

Question TestDevice::NewQuestion(uint32_t id) {
  const StoredIndex& index = stored_.at(id);
  const layout::IndexSpec& spec = index.spec;
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.index_id = id;
  d.index_generation = index.generation;
  d.format = spec.record_format;
  d.layer_slot = static_cast<uint16_t>(below(spec.layer_slots));
  d.first_head = static_cast<uint8_t>(below(spec.heads));
  d.heads = static_cast<uint8_t>(1 + below(spec.heads - d.first_head));
  d.queries = static_cast<uint8_t>(1 + below(3));
  d.group = static_cast<uint8_t>(1 + below(6));
  d.flags = static_cast<uint8_t>(below(4));  // by rank, ranks
  d.score_op = static_cast<uint8_t>(spec.record_format == layout::kFormatBounds  ? layout::kScorePageBound
                                    : spec.record_format == layout::kFormatMeans ? layout::kScoreBlockMean
                                                                                 : layout::kScoreDot);
  d.group_op = below(2) == 0 ? layout::kGroupMax : layout::kGroupPlainMax;
  d.select_op = layout::kSelectTopK;
  const uint32_t step = layout::EntryTokens(spec.record_format, d.flags);
  const uint32_t entries = index.tokens() / step;
  d.begin = below(3) == 0 ? below(entries + 1) * step : 0;
  d.end = d.begin + below(entries - d.begin / step + 1) * step;
  d.k = 1 + below(250);
  if (spec.record_format == layout::kFormatCodes2 && below(4) == 0) d.k1 = d.k + below(100);
  return QuestionOf(d);
}

Question TestDevice::QuestionOf(const Descriptor& d) {
  const StoredIndex& index = stored_.at(d.index_id);
  const uint32_t dim = index.spec.dim;
  Question question{.d = d, .dim = dim, .payload = {}, .result = {}, .expected = {}};
  const uint32_t blocks = uint32_t{d.heads} * d.queries;
  const size_t payload = layout::QueryBlockBytes(d.group, dim);
  const size_t result = layout::ResultBlockBytes(d.select_op, d.flags, d.k, dim);
  question.payload.resize(blocks * payload);
  question.result.resize(blocks * result);
  question.expected.resize(blocks * result);
  for (uint32_t n = 0; n < blocks; ++n) {
    const std::span<uint8_t> queries = std::span(question.payload).subspan(n * payload, payload);
    layout::MakeQueryBlock(RandomKeys(size_t{d.group} * dim, random), d.group, dim, d.format, 0.125F, {},
                           queries);
    std::vector<const uint8_t*> records;
    for (const auto& record :
         index.columns[size_t{d.layer_slot} * index.spec.heads + d.first_head + n % d.heads]) {
      records.push_back(record.data());
    }
    layout::ScoreSelect(d, {d.format, dim, records}, queries.data(),
                        std::span(question.expected).subspan(n * result, result));
  }
  return question;
}

std::vector<Completion> TestDevice::Run(std::vector<Question>* questions) {
  std::vector<memory_device::Operation> operations;
  for (Question& question : *questions) {
    question.d.seq = static_cast<uint32_t>(operations.size());
    operations.push_back({question.d, owner_, question.payload.data(), question.result.data()});
  }
  std::vector<Completion> done(operations.size());
  size_t submitted = 0;
  size_t count = 0;
  for (int silent = 0; count < done.size() && silent < kMostCalls; ++silent) {
    const size_t took = driver_->Submit(std::span(operations).subspan(submitted));
    submitted += took;
    const size_t came = driver_->Poll(std::span(done).subspan(count));
    count += came;
    if (took + came > 0) silent = 0;
  }
  done.resize(count);
  return done;
}

void TestDevice::CheckAnswers(std::vector<Question>* questions) {
  const std::vector<Completion> done = Run(questions);
  REQUIRE(done.size() == questions->size());
  for (size_t n = 0; n < done.size(); ++n) {
    const Question& question = (*questions)[n];
    CAPTURE(n, question.d.k, question.d.k1, question.d.group, question.d.begin, question.d.end);
    REQUIRE(done[n].seq == n);
    REQUIRE(done[n].status == layout::kStatusOk);
    REQUIRE(done[n].detail == layout::kNoDetail);
    REQUIRE(done[n].index_id == question.d.index_id);
    REQUIRE(done[n].watermark == stored_.at(question.d.index_id).tokens());
    REQUIRE(question.Answered());
  }
}

void TestDevice::Recover() {
  absl::Status reset = driver_->Reset();
  // A card that could not be made is asked for once more.
  if (!reset.ok() && !absl::IsDataLoss(reset)) reset = driver_->Reset();
  if (reset.ok()) {
    if (job_.active()) table_->AbortAppend(&job_);
    return;
  }
  REQUIRE(absl::IsDataLoss(reset));
  table_->Forget();
  if (job_.active()) job_.Forget();
  stored_.clear();
}

void TestDevice::ReadMemory(uint64_t address, std::span<uint8_t> bytes) {
  REQUIRE(port_->Read(address, bytes).ok());
}

void TestDevice::CheckEntry(const StoredIndex& index, const CardIndexState& state) {
  const uint8_t* const host = port_->host_memory().data();
  const auto table = ReadPair(port_, uint32_t{layout::kCardRegQueues} + layout::kCardQueueTable).value() -
                     port_->host_address();
  layout::CardIndex entry;
  std::memcpy(&entry, host + table + *state.number * sizeof entry, sizeof entry);
  CHECK(entry.exists == 1);
  CHECK(entry.generation == index.generation);
  CHECK(entry.record_format == index.spec.record_format);
  CHECK(entry.layer_slots == index.spec.layer_slots);
  CHECK(entry.heads == index.spec.heads);
  CHECK(entry.dim == index.spec.dim);
  CHECK(entry.shift == state.shift);
  CHECK(entry.max_tokens == index.spec.max_tokens);
  CHECK(entry.list_beat == state.list_beat);
  CHECK(entry.block_beats == layout::CardBlockOf(index.spec.record_format, index.spec.dim).beats);
  REQUIRE(entry.tokens_address % kCardBeatBytes == 0);
  for (uint32_t slot = 0; slot < index.spec.layer_slots; ++slot) {
    uint32_t tokens;
    std::memcpy(&tokens, host + (entry.tokens_address - port_->host_address()) + slot * sizeof tokens,
                sizeof tokens);
    REQUIRE(tokens == index.tokens());
  }
}

void TestDevice::CheckMemory() {
  const std::vector<ChannelRange>& channels = driver_->shape().channels;
  std::vector<std::map<uint64_t, uint64_t>> extents(channels.size());  // beats of each, by its first
  for (const auto& [id, index] : stored_) {
    const CardIndexState* const state = driver_->memory().Find({owner_, id});
    REQUIRE(state != nullptr);
    if (!state->number.has_value()) continue;
    CheckEntry(index, *state);
    const uint64_t beats = layout::CardBlockOf(index.spec.record_format, index.spec.dim).beats;
    std::vector<uint8_t> block(beats * kCardBeatBytes);
    std::vector<uint8_t> wanted(block.size());
    for (uint32_t page = 0; page < index.pages(); ++page) {
      const uint32_t channel = (page + state->shift) % static_cast<uint32_t>(channels.size());
      const uint64_t row = (page + state->shift) / channels.size();
      uint8_t word[4];
      ReadMemory((channels[channel].base + state->list_beat) * kCardBeatBytes + row * sizeof word, word);
      uint32_t extent;
      std::memcpy(&extent, word, sizeof extent);
      extents[channel][extent] = beats * index.columns.size();
      for (size_t column = 0; column < index.columns.size(); ++column) {
        ReadMemory((channels[channel].base + extent + column * beats) * kCardBeatBytes, block);
        StoreCardBlock(index.columns[column][page], index.spec.record_format, index.spec.dim, wanted);
        REQUIRE(block == wanted);
      }
    }
  }
  for (uint32_t channel = 0; channel < channels.size(); ++channel) {
    uint64_t end = driver_->memory().list_space_beats();
    uint64_t used = 0;
    for (const auto& [at, beats] : extents[channel]) {
      REQUIRE(at >= end);  // neither in the lists nor in another extent
      end = at + beats;
      used += beats;
    }
    REQUIRE(end <= channels[channel].length);
    REQUIRE(driver_->memory().used_beats(channel) == used);
  }
}

void TestDevice::CheckNothingLeaks() {
  while (!stored_.empty()) REQUIRE(Free(stored_.begin()->first) == layout::kStatusOk);
  CheckMemory();
  CHECK(driver_->memory().free_list_beats() == free_list_beats_);
  CHECK(driver_->memory().free_numbers() == free_numbers_);
  const memory_device::OwnerUsage usage = table_->Stats(owner_);
  CHECK(usage.held_bytes == 0);
  CHECK(usage.extents == 0);
}

}  // namespace mnemo::card
