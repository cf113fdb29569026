#include "fpga/tools/first_light.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "devices/memory/index_table.h"
#include "proto/layout/card.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/reference.h"

namespace mnemo::first_light {
namespace {

using layout::Completion;
using layout::Descriptor;
using layout::kPageTokens;
using memory_device::IndexTable;
using memory_device::MemoryDevice;
using std::chrono::steady_clock;

constexpr uint32_t kDim = 128;
constexpr uint32_t kGroup = 4;
constexpr uint32_t kPages = 33;  // so that channels have different numbers of them
constexpr uint32_t kTokens = kPages * kPageTokens;
constexpr uint32_t kBest = 100;
constexpr float kSoftmaxScale = 0.125F;
constexpr std::chrono::seconds kPatience{10};

std::vector<float> Normals(std::mt19937* random, size_t count) {
  std::normal_distribution<float> bell;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = bell(*random);
  return numbers;
}

Descriptor QueryOf(uint32_t format) {
  Descriptor d{};
  d.op = layout::kOpScoreSelect;
  d.heads = d.queries = 1;
  d.group = kGroup;
  d.score_op = layout::kScoreDot;
  d.group_op = layout::kGroupMax;
  d.select_op = layout::kSelectTopK;
  d.format = static_cast<uint8_t>(format);
  d.flags = layout::kFlagRanks;
  d.end = kTokens;
  d.k = kBest;
  return d;
}

absl::Status Expect(const Completion& completion, const char* what) {
  if (completion.status == layout::kStatusOk) return absl::OkStatus();
  return Internal("{}: status {}, detail {} (proto/layout/completion.h)", what, completion.status,
                  completion.detail);
}

absl::Status Fill(IndexTable* table, uint32_t owner, uint32_t format, const std::vector<float>& keys) {
  layout::IndexSpec spec{};
  spec.max_tokens = kTokens;
  spec.layer_slots = spec.heads = 1;
  spec.dim = kDim;
  spec.record_format = static_cast<uint8_t>(format);
  Descriptor d{};
  d.op = layout::kOpCreate;
  MNEMO_RETURN_IF_ERROR(Expect(table->Create(owner, d, spec), "creation of an index"));
  d.op = layout::kOpAppend;
  d.heads = 1;
  d.format = layout::kFormatF32;
  d.end = kTokens;
  return Expect(table->Append(owner, d, reinterpret_cast<const uint8_t*>(keys.data())), "append of records");
}

std::vector<uint8_t> Reference(const Descriptor& query, const std::vector<float>& keys,
                               std::span<const uint8_t> payload, size_t bytes) {
  std::vector<std::vector<uint8_t>> records;
  for (uint32_t page = 0; page < kPages; ++page) {
    records.emplace_back(layout::RecordBytes(query.format, kDim));
    layout::MakeRecord(
        {keys.data() + size_t{page} * kPageTokens * kDim, kDim * sizeof(float), layout::kFormatF32}, kDim,
        query.format, records.back());
  }
  std::vector<const uint8_t*> pages;
  for (const auto& record : records) pages.push_back(record.data());
  std::vector<uint8_t> result(bytes);
  layout::ScoreSelect(query, {query.format, kDim, pages}, payload.data(), result);
  return result;
}

absl::StatusOr<Completion> Run(MemoryDevice* device, const memory_device::Operation& operation) {
  if (device->Submit({&operation, 1}) == 0) return Unavailable("the device takes no operation");
  const steady_clock::time_point until = steady_clock::now() + kPatience;
  Completion done{};
  while (device->Poll({&done, 1}) == 0) {
    if (steady_clock::now() >= until) {
      return absl::DeadlineExceededError(
          fmt::format("the device has answered nothing for {} s", kPatience.count()));
    }
    std::this_thread::yield();
  }
  return done;
}

absl::Status CompareFormat(MemoryDevice* device, uint32_t format, std::string* lines) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<IndexTable> table, IndexTable::Create({}, &device->memory()));
  MNEMO_ASSIGN_OR_RETURN(const uint32_t owner, table->AddOwner({.quota_bytes = 64 << 20, .max_indexes = 1}));
  std::mt19937 random(format);
  const std::vector<float> keys = Normals(&random, size_t{kTokens} * kDim);
  MNEMO_RETURN_IF_ERROR(Fill(table.get(), owner, format, keys));
  std::vector<uint8_t> payload(layout::QueryBlockBytes(kGroup, kDim));
  layout::MakeQueryBlock(Normals(&random, size_t{kGroup} * kDim), kGroup, kDim, format, kSoftmaxScale, {},
                         payload);
  const Descriptor query = QueryOf(format);
  std::vector<uint8_t> result(layout::ResultBlockBytes(query.select_op, query.flags, kBest, kDim));
  const std::vector<uint8_t> wanted = Reference(query, keys, payload, result.size());
  MNEMO_ASSIGN_OR_RETURN(const Completion done, Run(device, {query, owner, payload.data(), result.data()}));
  MNEMO_RETURN_IF_ERROR(Expect(done, "query"));
  const auto differs = std::mismatch(result.begin(), result.end(), wanted.begin());
  if (differs.first != result.end()) {
    return Internal("{} bits: byte {} of the result is {:#x}, the reference's {:#x}",
                    layout::CodeBits(format), differs.first - result.begin(), *differs.first,
                    *differs.second);
  }
  *lines += fmt::format(
      "{} bits: {} of {} tokens, as the reference has them; {} ns for scores, {} ns for the "
      "selection{}\n",
      layout::CodeBits(format), kBest, kTokens, done.score_ns, done.select_ns,
      device->simulated_time() ? ", simulated" : "");
  return absl::OkStatus();
}

}  // namespace

std::string DescribeCard(card::CardPort* port) {
  struct Register {
    const char* name;
    uint32_t offset;
    bool pair;
  };
  constexpr Register kRegisters[] = {
      {"magic", layout::kCardRegMagic, false},
      {"version", layout::kCardRegVersion, false},
      {"card hash", layout::kCardRegCardHash, true},
      {"layout hash", layout::kCardRegLayoutHash, true},
      {"shape: channels, queries << 8, scores << 16", layout::kCardRegShape, false},
      {"words of a score bank", layout::kCardRegBankWords, false},
      {"operations", layout::kCardRegScoreOps, false},
      {"formats", layout::kCardRegFormats, false},
      {"dims", layout::kCardRegDims, false},
      {"largest group, largest k << 16", layout::kCardRegMaxGroup, false},
      {"state", layout::kCardRegState, false},
      {"failure", layout::kCardRegFailure, false},
  };
  std::string lines;
  for (const Register& of : kRegisters) {
    const absl::StatusOr<uint32_t> low = port->ReadRegister(of.offset);
    const absl::StatusOr<uint32_t> high = of.pair ? port->ReadRegister(of.offset + 4) : 0;
    if (!low.ok() || !high.ok()) {
      const absl::Status& status = low.ok() ? high.status() : low.status();
      return lines +
             fmt::format("register {:#05x}, {}: {}\n", of.offset, of.name, std::string(status.message()));
    }
    lines += fmt::format("register {:#05x}, {}: {:#x}\n", of.offset, of.name, uint64_t{*high} << 32 | *low);
  }
  return lines;
}

absl::Status CompareWithReference(MemoryDevice* device, std::string* lines) {
  for (const uint32_t format : {layout::kFormatCodes2, layout::kFormatCodes4, layout::kFormatCodes8}) {
    if ((device->caps().formats >> format & 1) == 0) continue;
    MNEMO_RETURN_IF_ERROR(CompareFormat(device, format, lines));
  }
  return absl::OkStatus();
}

}  // namespace mnemo::first_light
