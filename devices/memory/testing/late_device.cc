#include "devices/memory/testing/late_device.h"

#include <absl/strings/numbers.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "devices/memory/cpu/cpu_memory_device.h"

namespace mnemo::memory_device::testing {
namespace {

using std::chrono::microseconds;

constexpr uint8_t kGarbage = 0xA5;         // of extents that nothing was written to
constexpr uint32_t kEnergyUj = 1'500'000;  // of each operation, with `counts`

struct NumberOption {
  const char* key;
  uint64_t LateOptions::*field;
};
constexpr NumberOption kNumbers[] = {
    {"seed", &LateOptions::seed},
    {"delay_us", &LateOptions::delay_us},
    {"burst_us", &LateOptions::burst_us},
    {"hang_after", &LateOptions::hang_after},
    {"hang_uploads", &LateOptions::hang_uploads},
    {"fail_after", &LateOptions::fail_after},
    {"lose", &LateOptions::lose},
    {"broken_resets", &LateOptions::broken_resets},
    {"event", &LateOptions::event},
    {"counts", &LateOptions::counts},
};

absl::StatusOr<LateOptions> Parse(const MemoryDeviceOptions& options) {
  LateOptions late;
  for (const auto& [key, value] : options.device_options) {
    if (key == "without") {
      late.without = value;
      continue;
    }
    for (const NumberOption& number : kNumbers) {
      if (key == number.key && !absl::SimpleAtoi(value, &(late.*number.field))) {
        return InvalidArgument("device option \"{}\": \"{}\" is not a whole number", key, value);
      }
    }
  }
  return late;
}

constexpr uint32_t Bit(uint32_t n) { return 1U << n; }

layout::AttachHello Without(layout::AttachHello caps, const std::string& without) {
  const auto lacks = [&](const char* what) { return without.find(what) != std::string::npos; };
  if (lacks("gather")) caps.ops &= ~(Bit(layout::kOpGather) | Bit(layout::kOpScoreGather));
  if (lacks("kv")) {
    caps.ops &= ~(Bit(layout::kOpKvStore) | Bit(layout::kOpGather) | Bit(layout::kOpScoreGather));
  }
  if (lacks("cascade")) caps.cascade = 0;
  if (lacks("group")) caps.group_ops = static_cast<uint8_t>(Bit(layout::kGroupMax));
  if (lacks("codes")) caps.formats &= ~(Bit(layout::kFormatCodes4) | Bit(layout::kFormatCodes8));
  return caps;
}

LateClock::time_point Due(const LateOptions& options, std::mt19937_64& random) {
  LateClock::time_point due = LateClock::now();
  if (options.delay_us > 0) due += microseconds(random() % (options.delay_us + 1));
  if (options.burst_us > 0) {
    const microseconds burst(options.burst_us);
    const auto since = std::chrono::ceil<microseconds>(due.time_since_epoch());
    due = LateClock::time_point((since / burst + 1) * burst);
  }
  return due;
}

}  // namespace

MemoryDeviceKind LateKind() {
  MemoryDeviceKind kind{.name = "late", .option_keys = {"without"}, .create = LateDevice::Create};
  for (const NumberOption& number : kNumbers) kind.option_keys.emplace_back(number.key);
  return kind;
}

void AddLateKind() {
  static const bool added = [] {
    AddMemoryDeviceKind(LateKind());
    return true;
  }();
  (void)added;
}

LateMemory::LateMemory(const LateOptions& options)
    : options_(options), random_(options.seed * 31 + 7), inner_(std::make_unique<cpu::CpuRecordMemory>()) {}

void LateMemory::Protect(bool access) {
  inner_->pool().ForEachSlab([access](uint8_t* memory, uint64_t bytes) {
    MNEMO_CHECK(::mprotect(memory, bytes, access ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
  });
}

Extent LateMemory::Allocate(ExtentKind kind, IndexKey key, uint32_t page, uint64_t bytes) {
  Extent extent = kNoExtent;
  WithAccess([&](cpu::CpuRecordMemory& inner) {
    extent = inner.Allocate(kind, key, page, bytes);
    if (extent != kNoExtent) std::memset(inner.At(extent), kGarbage, bytes);
  });
  if (extent != kNoExtent) sizes_[extent] = bytes;
  return extent;
}

void LateMemory::Release(Extent extent) {
  std::erase_if(under_way_, [&](const Transfer& one) { return one.to == extent || one.from == extent; });
  std::erase_if(staged_, [&](const auto& one) { return one.first.first == extent; });
  sizes_.erase(extent);
  WithAccess([&](cpu::CpuRecordMemory& inner) { inner.Release(extent); });
}

uint8_t* LateMemory::Stage(Extent extent, uint64_t offset, uint64_t bytes) {
  MNEMO_CHECK(offset + bytes <= sizes_.at(extent));
  Buffer buffer(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  uint8_t* const at = buffer.get();
  staged_[{extent, offset}] = {bytes, std::move(buffer)};
  return at;
}

void LateMemory::Start(Transfer transfer) {
  transfer.ticket = ++last_ticket_;
  transfer.due = Due(options_, random_);
  if (!under_way_.empty()) transfer.due = std::max(transfer.due, under_way_.back().due);
  if (++uploads_ == options_.hang_uploads + 1 && options_.hang_uploads != 0)
    transfer.due = LateClock::time_point::max();
  under_way_.push_back(std::move(transfer));
}

Ticket LateMemory::Upload(Extent extent, uint64_t offset, uint64_t bytes) {
  auto staged = staged_.extract({extent, offset});
  MNEMO_CHECK(!staged.empty() && staged.mapped().first == bytes);
  Start({.to = extent,
         .from = kNoExtent,
         .offset = offset,
         .bytes = bytes,
         .buffer = std::move(staged.mapped().second)});
  return last_ticket_;
}

Ticket LateMemory::Copy(Extent from, Extent to) {
  MNEMO_CHECK(sizes_.at(from) == sizes_.at(to));
  Start({.to = to, .from = from, .offset = 0, .bytes = sizes_.at(from), .buffer = nullptr});
  return last_ticket_;
}

void LateMemory::Progress() {
  if (under_way_.empty() || LateClock::now() < under_way_.front().due) return;
  WithAccess([&](cpu::CpuRecordMemory& inner) {
    for (; !under_way_.empty() && LateClock::now() >= under_way_.front().due; under_way_.pop_front()) {
      const Transfer& one = under_way_.front();
      const uint8_t* source = one.from == kNoExtent ? one.buffer.get() : inner.At(one.from);
      std::memcpy(inner.At(one.to) + one.offset, source, one.bytes);
    }
  });
}

bool LateMemory::Arrived(Ticket ticket) {
  Progress();
  return under_way_.empty() || under_way_.front().ticket > ticket;
}

absl::Status LateMemory::Read(Extent extent, uint64_t offset, std::span<uint8_t> out) {
  absl::Status status;
  WithAccess([&](cpu::CpuRecordMemory& inner) { status = inner.Read(extent, offset, out); });
  return status;
}

void LateMemory::OpenIndex(IndexKey key, uint16_t generation, const layout::IndexSpec& spec,
                           const IndexKey* forked_from) {
  inner_->OpenIndex(key, generation, spec, forked_from);
}

void LateMemory::PublishPages(IndexKey key, ExtentKind kind, uint32_t first_page,
                              std::span<const Extent> pages) {
  // Nothing may be published before it has arrived.
  for (const Transfer& one : under_way_) {
    MNEMO_CHECK(std::find(pages.begin(), pages.end(), one.to) == pages.end());
  }
  inner_->PublishPages(key, kind, first_page, pages);
}

void LateMemory::PublishTokens(IndexKey key, ExtentKind kind, uint32_t first_slot,
                               std::span<const uint32_t> tokens) {
  const cpu::ResidentIndex& index = *inner_->Find(key);
  const size_t pages = kind == ExtentKind::kRecords ? index.pages.size() : index.kv_pages.size();
  // Lists come before counts, but for what is truncated.
  for (const uint32_t count : tokens) MNEMO_CHECK(count <= pages * layout::kPageTokens);
  inner_->PublishTokens(key, kind, first_slot, tokens);
}

void LateMemory::CloseIndex(IndexKey key) { inner_->CloseIndex(key); }

void LateMemory::Reset(bool lose) {
  under_way_.clear();
  if (!lose) return;
  staged_.clear();
  sizes_.clear();
  Protect(true);
  inner_ = std::make_unique<cpu::CpuRecordMemory>();
}

absl::StatusOr<std::unique_ptr<MemoryDevice>> LateDevice::Create(const MemoryDeviceOptions& options) {
  MNEMO_ASSIGN_OR_RETURN(const LateOptions late, Parse(options));
  MemoryDeviceOptions of_cpu = options;
  of_cpu.device_options.clear();
  of_cpu.threads = 1;
  of_cpu.max_operations = 1;
  MNEMO_ASSIGN_OR_RETURN(const auto cpu, cpu::CpuMemoryDevice::Create(of_cpu));
  cpu::QueryBatchLimits limits;
  limits.max_operations = 1;
  limits.max_blocks = options.max_heads * options.max_queries;
  limits.max_tokens = options.max_tokens;
  limits.max_group = options.max_group;
  limits.max_k = options.max_k;
  limits.isa = options.isa;
  MNEMO_ASSIGN_OR_RETURN(auto batch, cpu::QueryBatch::Create(limits));
  return std::unique_ptr<MemoryDevice>(
      new LateDevice(options, late, Without(cpu->caps(), late.without), std::move(batch)));
}

LateDevice::LateDevice(const MemoryDeviceOptions& options, const LateOptions& late, layout::AttachHello caps,
                       std::unique_ptr<cpu::QueryBatch> batch)
    : options_(options),
      late_(late),
      caps_(caps),
      batch_(std::move(batch)),
      memory_(late),
      random_(late.seed) {
  if (late.event != 0) event_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

LateDevice::~LateDevice() {
  memory_.Reset(true);
  if (event_fd_ >= 0) ::close(event_fd_);
}

void LateDevice::SetTimer() {
  if (event_fd_ < 0) return;
  itimerspec when{};
  if (!submitted_.empty() && submitted_.front().due != LateClock::time_point::max()) {
    const auto due = submitted_.front().due.time_since_epoch();
    when.it_value.tv_sec = std::chrono::floor<std::chrono::seconds>(due).count();
    when.it_value.tv_nsec = std::chrono::nanoseconds(due).count() % 1000000000;
  } else if (memory_.busy()) {
    when.it_value.tv_nsec = 100000;
    ::timerfd_settime(event_fd_, 0, &when, nullptr);
    return;
  }
  ::timerfd_settime(event_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
}

std::vector<DeviceCounter> LateDevice::Counters() {
  if (late_.counts == 0) return {};
  return {{.name = "device_jobs_total", .value = static_cast<double>(finished_)},
          {.name = "device_channel_bytes_total", .channel = 0, .value = static_cast<double>(bytes_read_)},
          {.name = "device_channel_stall_cycles_total",
           .channel = 0,
           .label = "cause",
           .label_value = "memory",
           .value = 0}};
}

size_t LateDevice::Submit(std::span<const Operation> operations) {
  const size_t count =
      std::min<size_t>(options_.max_operations - submitted_.size() - done_.size(), operations.size());
  for (const Operation& operation : operations.first(count)) {
    LateClock::time_point due = Due(late_, random_);
    if (!submitted_.empty()) due = std::max(due, submitted_.back().due);
    submitted_.push_back({operation, due});
  }
  SetTimer();
  return count;
}

layout::Completion LateDevice::RunFirst() {
  const Operation operation = submitted_.front().operation;
  submitted_.pop_front();
  layout::Completion completion{};
  if (++finished_ == late_.fail_after + 1 && late_.fail_after != 0) {
    completion.index_id = operation.descriptor.index_id;
    completion.energy_uj = layout::kEnergyUnknown;
    completion.status = layout::kStatusDeviceFailed;
    completion.detail = layout::kNoDetail;
    completion.seq = operation.descriptor.seq;
    return completion;
  }
  memory_.WithAccess([&](const cpu::CpuRecordMemory& inner) {
    batch_->RunAll({&operation, 1}, inner, {&completion, 1});
  });
  bytes_read_ += completion.bytes_read;
  if (late_.counts != 0) completion.energy_uj = kEnergyUj;
  return completion;
}

size_t LateDevice::Poll(std::span<layout::Completion> completions) {
  memory_.Progress();
  size_t count = 0;
  for (; count < completions.size() && !done_.empty(); done_.pop_front())
    completions[count++] = done_.front();
  while (count < completions.size() && !submitted_.empty() && !hung_ &&
         LateClock::now() >= submitted_.front().due) {
    hung_ = late_.hang_after != 0 && finished_ == late_.hang_after;
    if (hung_) {
      ++finished_;  // it hangs once
      break;
    }
    completions[count++] = RunFirst();
  }
  SetTimer();
  return count;
}

absl::Status LateDevice::Quiesce() {
  if (hung_) return absl::DeadlineExceededError("the late device hangs");
  while (!submitted_.empty()) done_.push_back(RunFirst());
  return absl::OkStatus();
}

absl::Status LateDevice::Reset() {
  submitted_.clear();
  done_.clear();
  hung_ = false;
  SetTimer();
  memory_.Reset(late_.lose != 0 || late_.broken_resets > 0);
  if (resets_++ < late_.broken_resets) return Internal("the late device does not start");
  return late_.lose != 0 ? absl::DataLossError("the late device has lost its indexes") : absl::OkStatus();
}

}  // namespace mnemo::memory_device::testing
