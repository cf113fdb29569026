#include "fpga/report/device_run.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "devices/memory/codes.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::card::report {
namespace {

using layout::Completion;
using layout::Descriptor;
using memory_device::IndexTable;
using memory_device::MemoryDevice;
using memory_device::MemoryDeviceOptions;

constexpr uint32_t kIndexId = 0;
constexpr uint64_t kQuotaBytes = uint64_t{8} << 30;
constexpr uint32_t kTokensOfAppend = 4096;
constexpr float kSoftmaxScale = 0.125F;

// Normal numbers; rows of an index are windows into them, none twice at the same place.
std::vector<float> Normals(size_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> bell;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = bell(random);
  return numbers;
}

// Keys of all orders but the random one are multiples of one row, as are the queries: this multiple.
float LevelOf(Order order, uint32_t token, uint32_t tokens) {
  constexpr float kHighest = 0.1F;
  const float share = static_cast<float>(token) / static_cast<float>(tokens);
  switch (order) {
    case Order::kRising:
      return kHighest * (2 * share - 1);
    case Order::kFalling:
      return kHighest * (1 - 2 * share);
    case Order::kSpike:
      return token == SpikeOf(tokens) ? kHighest : -kHighest / 2;
    default:
      return kHighest;
  }
}

// Writes the row times its level for each token in [begin, end).
void FillLevels(Order order, uint32_t begin, uint32_t end, uint32_t tokens, std::span<const float> row,
                float* to) {
  for (uint32_t token = begin; token < end; ++token) {
    const float level = LevelOf(order, token, tokens);
    to = std::transform(row.begin(), row.end(), to, [level](float value) { return level * value; });
  }
}

bool Has(uint32_t mask, uint32_t bit) { return (mask >> bit & 1) != 0; }

absl::Status Expect(const Completion& completion, const char* what) {
  if (completion.status == layout::kStatusOk) return absl::OkStatus();
  return absl::InternalError(
      fmt::format("{}: status {}, detail {}", what, completion.status, completion.detail));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceRun>> DeviceRun::Make(const MemoryDeviceOptions& options) {
  absl::StatusOr<std::unique_ptr<MemoryDevice>> device = memory_device::MakeMemoryDevice(options);
  if (!device.ok()) return device.status();
  return Over(*std::move(device));
}

absl::StatusOr<std::unique_ptr<DeviceRun>> DeviceRun::Over(std::unique_ptr<MemoryDevice> device) {
  absl::StatusOr<std::unique_ptr<IndexTable>> table = IndexTable::Create({}, &device->memory());
  if (!table.ok()) return table.status();
  absl::StatusOr<uint32_t> owner = (*table)->AddOwner({.quota_bytes = kQuotaBytes, .max_indexes = 1});
  if (!owner.ok()) return owner.status();
  return std::unique_ptr<DeviceRun>(new DeviceRun(std::move(device), *std::move(table), *owner));
}

DeviceRun::DeviceRun(std::unique_ptr<MemoryDevice> device, std::unique_ptr<IndexTable> table, uint32_t owner)
    : device_(std::move(device)), table_(std::move(table)), owner_(owner) {}

bool DeviceRun::Serves(const Workload& workload) const {
  const layout::AttachHello& caps = device_->caps();
  const Descriptor d = DescriptorOf(workload);
  return (!workload.sign_stage || caps.cascade != 0) && Has(caps.formats, d.format) &&
         Has(caps.score_ops, d.score_op) && Has(caps.group_ops, d.group_op) &&
         workload.group <= caps.max_group && workload.k <= caps.max_k && workload.heads <= caps.max_heads;
}

absl::Status DeviceRun::FillIndex(const Workload& workload) {
  layout::IndexSpec spec{};
  spec.max_tokens = (workload.tokens + layout::kPageTokens - 1) / layout::kPageTokens * layout::kPageTokens;
  spec.layer_slots = 1;
  spec.heads = static_cast<uint16_t>(workload.heads);
  spec.dim = static_cast<uint16_t>(workload.dim);
  spec.record_format = workload.format;
  Descriptor d{};
  d.op = layout::kOpCreate;
  d.index_id = kIndexId;
  MNEMO_RETURN_IF_ERROR(Expect(table_->Create(owner_, d, spec), "create"));

  const size_t row = size_t{kTokensOfAppend} * workload.dim;
  const std::vector<float> normals = Normals(row + (size_t{1} << 20));
  std::vector<float> keys(row * workload.heads);
  size_t window = 0;
  for (uint32_t begin = 0; begin < workload.tokens; begin += kTokensOfAppend) {
    const uint32_t end = std::min(begin + kTokensOfAppend, workload.tokens);
    const size_t count = size_t{end - begin} * workload.dim;
    for (uint32_t head = 0; head < workload.heads; ++head) {
      if (workload.order != Order::kRandom) {
        FillLevels(workload.order, begin, end, workload.tokens, std::span(normals).first(workload.dim),
                   keys.data() + head * count);
        continue;
      }
      window = (window + 10007) % (size_t{1} << 20);
      std::copy_n(normals.begin() + static_cast<ptrdiff_t>(window), count,
                  keys.begin() + static_cast<ptrdiff_t>(head * count));
    }
    d = {};
    d.op = layout::kOpAppend;
    d.index_id = kIndexId;
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = static_cast<uint8_t>(workload.heads);
    d.format = layout::kFormatF32;
    d.begin = begin;
    d.end = end;
    MNEMO_RETURN_IF_ERROR(
        Expect(table_->Append(owner_, d, reinterpret_cast<const uint8_t*>(keys.data())), "append"));
  }
  return absl::OkStatus();
}

memory_device::IndexKey DeviceRun::index() const { return {owner_, kIndexId}; }

absl::Status DeviceRun::End() {
  Descriptor d{};
  d.op = layout::kOpFree;
  d.index_id = kIndexId;
  return Expect(table_->Free(owner_, d), "free");
}

uint64_t DeviceRun::BusyCycles() {
  double most = 0;
  for (const memory_device::DeviceCounter& counter : device_->Counters()) {
    if (counter.name == "device_channel_busy_cycles_total") most = std::max(most, counter.value);
  }
  return static_cast<uint64_t>(most);
}

std::vector<uint32_t> DeviceRun::Ids() const {
  layout::ResultHeader header;
  std::memcpy(&header, result_.data(), sizeof(header));
  std::vector<uint32_t> ids(header.count);
  if (!ids.empty()) {
    std::memcpy(ids.data(), result_.data() + sizeof(header), ids.size() * sizeof(ids[0]));
  }
  return ids;
}

absl::StatusOr<DeviceTimes> DeviceRun::RunOnce(const Descriptor& descriptor) {
  using Clock = std::chrono::steady_clock;
  const memory_device::Operation operation{descriptor, owner_, payload_.data(), result_.data()};
  Completion completion{};
  const uint64_t busy_before = BusyCycles();
  const Clock::time_point began = Clock::now();
  while (device_->Submit(std::span(&operation, 1)) == 0) std::this_thread::yield();
  while (device_->Poll(std::span(&completion, 1)) == 0) std::this_thread::yield();
  const Clock::time_point ended = Clock::now();
  MNEMO_RETURN_IF_ERROR(Expect(completion, "score and select"));
  DeviceTimes times;
  times.score_us = static_cast<double>(completion.score_ns) / 1000;
  times.select_us = static_cast<double>(completion.select_ns) / 1000;
  times.wall_us = std::chrono::duration<double, std::micro>(ended - began).count();
  const double of_threads = times.score_us + times.select_us;
  if (!device_->simulated_time() && of_threads > times.wall_us) {
    times.score_us *= times.wall_us / of_threads;
    times.select_us = times.wall_us - times.score_us;
  }
  times.bytes = completion.bytes_read;
  times.busy_cycles = BusyCycles() - busy_before;
  return times;
}

absl::StatusOr<Descriptor> DeviceRun::Begin(const Workload& workload) {
  if (!Serves(workload)) return absl::UnimplementedError("the device has not this operation");
  MNEMO_RETURN_IF_ERROR(FillIndex(workload));
  Descriptor d = DescriptorOf(workload);
  d.index_id = kIndexId;
  // The second stage reads one page.
  if (workload.sign_stage) d.k = d.k1 = 1;
  const size_t query_bytes = layout::QueryBlockBytes(workload.group, workload.dim);
  const size_t result_bytes = layout::ResultBlockBytes(d.select_op, d.flags, d.k, workload.dim);
  payload_.assign(query_bytes * workload.heads, 0);
  result_.assign(result_bytes * workload.heads, 0);
  std::vector<float> queries = Normals(size_t{workload.group} * workload.dim);
  if (workload.order != Order::kRandom) {
    for (size_t i = workload.dim; i < queries.size(); ++i) queries[i] = queries[i - workload.dim];
  }
  std::vector<int16_t> weights(workload.relu ? workload.group : 0);
  for (size_t g = 0; g < weights.size(); ++g) weights[g] = static_cast<int16_t>(1000 * (g + 1) % 30011);
  for (uint32_t head = 0; head < workload.heads; ++head) {
    memory_device::MakeQueryBlockFast(queries, workload.group, workload.dim, workload.format, kSoftmaxScale,
                                      weights, std::span(payload_).subspan(head * query_bytes, query_bytes));
  }
  d.payload_length = static_cast<uint32_t>(payload_.size() / layout::kUnitBytes);
  d.result_length = static_cast<uint32_t>(result_.size() / layout::kUnitBytes);
  d.index_generation = table_->Info(owner_, kIndexId, 0).generation;
  return d;
}

absl::StatusOr<DeviceTimes> DeviceRun::Run(const Workload& workload, uint32_t times) {
  const absl::StatusOr<Descriptor> d = Begin(workload);
  if (!d.ok()) return d.status();
  DeviceTimes least;
  for (uint32_t n = 0; n < times; ++n) {
    absl::StatusOr<DeviceTimes> once = RunOnce(*d);
    if (!once.ok()) return once.status();
    if (n == 0 || once->wall_us < least.wall_us) least = *once;
  }
  if (device_->simulated_time() && workload.heads > 1) {
    const std::vector<uint8_t> results = result_;
    Descriptor one_head = *d;
    one_head.heads = 1;
    absl::StatusOr<DeviceTimes> alone = RunOnce(one_head);
    if (!alone.ok()) return alone.status();
    least.head_us = alone->score_us;
    result_ = results;
  }
  MNEMO_RETURN_IF_ERROR(End());
  return least;
}

}  // namespace mnemo::card::report
