#include "server/memory_service/data_plane.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/base/wait.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::memory_service {
namespace {

using layout::AttachHello;

constexpr uint32_t kBatch = 256;  // most operations of all owners under way
constexpr std::chrono::microseconds kBulkSlice{200};
constexpr uint32_t kMaxOwners = 64;
constexpr size_t kMaxQuotas = 1024;  // most owners with a quota of their own
constexpr int kMaxSleepMs = 1000;
constexpr int kDeviceSleepMs = 1;  // longest sleep while a device that has no event descriptor computes
constexpr std::chrono::seconds kResetInterval{1};
constexpr std::chrono::seconds kCountersTime{1};  // for which a caller waits for figures of a device
// Time within which the end of a worker is noticed.
constexpr std::chrono::milliseconds kNoticeTime{100};

}  // namespace

DataPlane::DataPlane(const Options& options)
    : options_(options), device_name_(options.name + ":" + options.device) {}

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Create(const Options& options) {
  if (options.max_owners < 1 || options.max_owners > kMaxOwners) {
    return InvalidArgument("max_owners: {}, allowed are 1 to {}", options.max_owners, kMaxOwners);
  }
  if (options.quota_bytes > options.memory_bytes) {
    return InvalidArgument("quota_bytes: {} is more than the memory of {}", options.quota_bytes,
                           options.memory_bytes);
  }
  if (options.operation_timeout_ms < 1) {
    return InvalidArgument("operation_timeout_ms: {}, at least 1 is allowed", options.operation_timeout_ms);
  }
  auto plane = std::unique_ptr<DataPlane>(new DataPlane(options));
  MNEMO_RETURN_IF_ERROR(plane->Start());
  return plane;
}

absl::Status DataPlane::Start() {
  MNEMO_ASSIGN_OR_RETURN(device_,
                         memory_device::MakeMemoryDevice({.kind = options_.device,
                                                          .name = device_name_,
                                                          .threads = options_.threads,
                                                          .isa = options_.isa,
                                                          .max_operations = kBatch,
                                                          .max_tokens = options_.max_tokens,
                                                          .device_options = options_.device_options}));
  MNEMO_ASSIGN_OR_RETURN(table_, memory_device::IndexTable::Create({.capacity_bytes = options_.memory_bytes,
                                                                    .max_owners = options_.max_owners,
                                                                    .threads = options_.threads,
                                                                    .isa = options_.isa},
                                                                   &device_->memory()));
  limits_ = device_->caps();
  const AttachHello fresh = layout::NewHello();
  limits_.magic = fresh.magic;
  limits_.abi_major = fresh.abi_major;
  limits_.abi_minor = fresh.abi_minor;
  limits_.layout_hash = fresh.layout_hash;
  limits_.quantiser_id = fresh.quantiser_id;
  limits_.placement = layout::kResultsAtService;
  limits_.max_tokens = std::min(limits_.max_tokens, options_.max_tokens);
  limits_.max_indexes = options_.max_indexes;
  limits_.quota_bytes = options_.quota_bytes;
  limits_.region_bytes = options_.region_bytes;
  limits_.bulk_slots = options_.bulk_slots;
  limits_.query_slots = options_.query_slots;
  limits_.regions = 1;
  simulated_time_ = device_->simulated_time();
  record_capacity_bytes_ = device_->memory().record_capacity_bytes();
  energy_source_ = device_->energy_source();
  device_counters_ = device_->Counters();
  has_counters_ = !device_counters_.empty();
  work_.operations.reserve(kBatch);
  work_.origins.reserve(kBatch);
  completions_.resize(kBatch);
  attachments_.reserve(options_.max_owners);
  leaving_.reserve(options_.max_owners);
  fds_.reserve(2 + 2 * size_t{options_.max_owners});
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return Internal("eventfd: errno {}", errno);
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

DataPlane::~DataPlane() {
  if (!thread_.joinable()) return;
  stop_ = true;
  Notify();
  thread_.join();
}

void DataPlane::Notify() const {
  called_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // EAGAIN: the counter is full, so a wake-up is pending already.
  MNEMO_CHECK(::write(wake_.get(), &one, sizeof one) == sizeof one || errno == EAGAIN);
}

std::vector<memory_device::DeviceCounter> DataPlane::DeviceCounters() const {
  if (!has_counters_) return {};
  std::unique_lock lock(mutex_);
  const uint64_t asked = ++counters_asked_;
  Notify();
  answered_.wait_for(lock, kCountersTime, [&] { return counters_answered_ >= asked; });
  return device_counters_;
}

std::vector<memory_device::DeviceCounter> DataPlane::LastDeviceCounters() const {
  if (!has_counters_) return {};
  std::lock_guard lock(mutex_);
  ++counters_asked_;
  Notify();
  return device_counters_;
}

void DataPlane::AnswerCounters() {
  uint64_t asked;
  {
    std::lock_guard lock(mutex_);
    asked = counters_asked_;
    if (asked == counters_answered_) return;
  }
  std::vector<memory_device::DeviceCounter> counters = device_->Counters();
  std::lock_guard lock(mutex_);
  device_counters_ = std::move(counters);
  counters_answered_ = asked;
  answered_.notify_all();
}

uint64_t DataPlane::Quota(const std::string& owner) const {
  std::lock_guard lock(mutex_);
  return QuotaLocked(owner);
}

uint64_t DataPlane::QuotaLocked(const std::string& owner) const {
  const auto found = quotas_.find(owner);
  if (found != quotas_.end()) return found->second;
  return options_.quota_bytes > 0 ? options_.quota_bytes : options_.memory_bytes / options_.max_owners;
}

absl::StatusOr<AttachHello> DataPlane::Grant(const std::string& owner, const AttachHello& wanted) {
  std::unique_lock lock(mutex_);
  if (!device_error_.empty()) return Unavailable("{}: {}", device_name_, device_error_);
  if (draining_) return Unavailable("{}: draining, takes no new owners", device_name_);
  const auto has_room = [&] { return entries_.size() < options_.max_owners; };
  const auto has_memory = [&] {
    const uint64_t quota = QuotaLocked(owner);
    return (wanted.quota_bytes == 0 ? quota : std::min(quota, wanted.quota_bytes)) <=
           options_.memory_bytes - granted_bytes_;
  };
  if (!has_room() || !has_memory()) {
    // The end of an owner may not have been noticed yet.
    Notify();
    room_.wait_for(lock, kNoticeTime, [&] { return has_room() && has_memory(); });
  }
  if (!has_room()) {
    return ResourceExhausted("max_owners: {} are attached, {} are allowed", entries_.size(),
                             options_.max_owners);
  }
  AttachHello limits = limits_;
  limits.quota_bytes = std::min(QuotaLocked(owner), options_.memory_bytes - granted_bytes_);
  if (limits.quota_bytes == 0) {
    return ResourceExhausted("memory_bytes: all of {} are granted to {} owners", options_.memory_bytes,
                             entries_.size());
  }
  MNEMO_ASSIGN_OR_RETURN(AttachHello granted, transport::GrantWithin(wanted, limits));
  const auto in_use = [&](uint16_t epoch) {
    return epoch == 0 || std::any_of(entries_.begin(), entries_.end(),
                                     [&](const Entry& entry) { return entry.epoch == epoch; });
  };
  do {
    ++last_epoch_;
  } while (in_use(last_epoch_));
  granted.epoch = last_epoch_;
  granted_bytes_ += granted.quota_bytes;
  entries_.push_back({.owner = owner, .epoch = granted.epoch, .quota_bytes = granted.quota_bytes});
  ++attachment_count_;
  return granted;
}

void DataPlane::Attached(uint16_t epoch, std::unique_ptr<transport::ServiceAttachment> attachment) {
  {
    std::lock_guard lock(mutex_);
    const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& candidate) { return candidate.epoch == epoch; });
    MNEMO_CHECK(entry != entries_.end());
    if (attachment == nullptr) {
      granted_bytes_ -= entry->quota_bytes;
      entries_.erase(entry);
      room_.notify_all();
      return;
    }
    entry->pid = attachment->attached().pid;
    arrived_.push_back(std::move(attachment));
  }
  Notify();
}

PlaneStats DataPlane::Stats() const {
  std::lock_guard lock(mutex_);
  PlaneStats stats;
  stats.device_name = device_name_;
  stats.memory_bytes = options_.memory_bytes;
  stats.draining = draining_;
  stats.attachments = attachment_count_;
  stats.lost_owners = lost_owners_;
  for (const Entry& entry : entries_) {
    OwnerStats owner = {entry.owner, entry.epoch, entry.pid, entry.quota_bytes};
    if (entry.counters != nullptr) {
      owner.used_bytes = entry.counters->used_bytes.load(std::memory_order_relaxed);
      owner.indexes = static_cast<uint32_t>(entry.counters->indexes.load(std::memory_order_relaxed));
      owner.operations = entry.counters->operations.load(std::memory_order_relaxed);
      owner.refused = entry.counters->refused.load(std::memory_order_relaxed);
    }
    stats.used_bytes += owner.used_bytes;
    stats.indexes += owner.indexes;
    stats.owners.push_back(std::move(owner));
  }
  return stats;
}

void DataPlane::Drain(bool draining) {
  {
    std::lock_guard lock(mutex_);
    draining_ = draining;
  }
  Notify();
}

absl::Status DataPlane::SetQuota(const std::string& owner, uint64_t quota_bytes) {
  std::lock_guard lock(mutex_);
  if (quota_bytes > options_.memory_bytes) {
    return ResourceExhausted("quota_bytes: {}, the memory of all indexes is {}", quota_bytes,
                             options_.memory_bytes);
  }
  if (quota_bytes == 0) {
    quotas_.erase(owner);
    return absl::OkStatus();
  }
  if (quotas_.size() >= kMaxQuotas && !quotas_.contains(owner)) {
    return ResourceExhausted("quota_bytes: {} owners have a quota of their own, {} can have", quotas_.size(),
                             kMaxQuotas);
  }
  quotas_[owner] = quota_bytes;
  return absl::OkStatus();
}

uint32_t DataPlane::Drop(const std::string& owner, uint16_t epoch) {
  uint32_t count = 0;
  {
    std::lock_guard lock(mutex_);
    for (Entry& entry : entries_) {
      if (entry.owner != owner || (epoch != 0 && entry.epoch != epoch) || entry.drop) continue;
      entry.drop = true;
      ++count;
    }
  }
  Notify();
  return count;
}

void DataPlane::Attach(std::unique_ptr<transport::ServiceAttachment> attachment) {
  const transport::Attached attached = attachment->attached();
  // Cannot fail: the sum of the granted quotas fits the table.
  absl::StatusOr<std::unique_ptr<Attachment>> owner =
      Attachment::Create(std::move(attachment), table_.get(), &counters_);
  MNEMO_CHECK(owner.ok());
  spdlog::info("{} (pid {}) attached as {}, quota {} bytes", attached.owner, attached.pid,
               attached.granted.epoch, attached.granted.quota_bytes);
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.epoch == attached.granted.epoch) entry.counters = &(*owner)->counters();
  }
  attachments_.push_back(std::move(*owner));
}

// Carries out the requests of other threads: new attachments, drops, draining, figures of the device.
void DataPlane::TakeCalls() {
  if (!called_.exchange(false, std::memory_order_acquire)) return;
  uint64_t rung;
  (void)!::read(wake_.get(), &rung, sizeof rung);
  std::vector<std::unique_ptr<transport::ServiceAttachment>> arrived;
  std::vector<uint16_t> dropped;
  {
    std::lock_guard lock(mutex_);
    arrived.swap(arrived_);
    table_->Drain(draining_);
  }
  if (has_counters_) AnswerCounters();
  for (std::unique_ptr<transport::ServiceAttachment>& attachment : arrived) Attach(std::move(attachment));
  {
    std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (entry.drop) dropped.push_back(entry.epoch);
    }
  }
  for (const uint16_t epoch : dropped) {
    for (size_t i = attachments_.size(); i-- > 0;) {
      if (attachments_[i]->attached().granted.epoch == epoch) {
        Remove(i, absl::CancelledError("dropped by its operator"));
      }
    }
  }
}

void DataPlane::Remove(size_t index, const absl::Status& why) {
  std::unique_ptr<Attachment> attachment = std::move(attachments_[index]);
  attachments_.erase(attachments_.begin() + static_cast<ptrdiff_t>(index));
  if (attachment->busy()) {
    leaving_.push_back({std::move(attachment), std::string(why.message())});
    return;
  }
  const memory_device::OwnerUsage usage = attachment->Usage();
  Erase(std::move(attachment), usage, std::string(why.message()));
}

void DataPlane::RemoveLeft() {
  for (size_t i = leaving_.size(); i-- > 0;) {
    bool worked = false;
    // Completes a bulk operation whose owner is gone; there is nobody to answer.
    if (leaving_[i].attachment->arriving()) (void)leaving_[i].attachment->WorkOnBulk({}, &worked);
    if (leaving_[i].attachment->busy()) continue;
    Leaving left = std::move(leaving_[i]);
    leaving_.erase(leaving_.begin() + static_cast<ptrdiff_t>(i));
    const memory_device::OwnerUsage usage = left.attachment->Usage();
    Erase(std::move(left.attachment), usage, left.why);
  }
}

void DataPlane::Erase(std::unique_ptr<Attachment> attachment, const memory_device::OwnerUsage& usage,
                      const std::string& why) {
  const transport::Attached& attached = attachment->attached();
  spdlog::info("{} (pid {}) detached as {} with {} indexes of {} bytes: {}", attached.owner, attached.pid,
               attached.granted.epoch, usage.indexes, usage.held_bytes, why);
  std::lock_guard lock(mutex_);
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& candidate) {
    return candidate.epoch == attached.granted.epoch;
  });
  MNEMO_CHECK(entry != entries_.end());
  if (usage.indexes > 0) ++lost_owners_;
  granted_bytes_ -= entry->quota_bytes;
  entries_.erase(entry);
  room_.notify_all();
}

// Submits all operations that the device does not have yet. The first `old_operations` come from earlier
// turns.
void DataPlane::SubmitQueries(size_t old_operations) {
  const size_t first = work_.submitted;
  work_.submitted += device_->Submit(std::span(work_.operations).subspan(first));
  for (size_t i = first; i < work_.submitted; ++i) {
    work_.origins[i].submitted_at = i < old_operations ? Clock::now() : work_.taken_at;
  }
}

size_t DataPlane::CollectCompletions() {
  if (work_.submitted == 0) return 0;
  const size_t count = device_->Poll(std::span(completions_).first(work_.submitted));
  for (size_t i = 0; i < count; ++i) {
    const QueryWork::Origin& origin = work_.origins[i];
    completions_[i].queue_ns = static_cast<uint32_t>(std::min<int64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(origin.submitted_at - origin.taken_at).count(),
        UINT32_MAX));
    origin.attachment->Finish(work_.operations[i], completions_[i]);
  }
  if (count == 0) return 0;
  work_.operations.erase(work_.operations.begin(), work_.operations.begin() + static_cast<ptrdiff_t>(count));
  work_.origins.erase(work_.origins.begin(), work_.origins.begin() + static_cast<ptrdiff_t>(count));
  work_.submitted -= count;
  if (!work_.operations.empty()) waiting_since_ = Clock::now();
  return count;
}

bool DataPlane::RunQueries() {
  const size_t old_operations = work_.operations.size();
  // Each turn begins with another owner, so that a full batch starves no owner.
  ++turn_;
  for (size_t n = 0; n < attachments_.size(); ++n) {
    const uint32_t room = kBatch - static_cast<uint32_t>(work_.operations.size());
    attachments_[(turn_ + n) % attachments_.size()]->TakeQueries(room, &work_);
  }
  if (work_.operations.size() > old_operations) {
    Add(counters_.batches, 1);
    if (old_operations == 0) waiting_since_ = work_.taken_at;
  }
  if (!work_.operations.empty()) {
    SubmitQueries(old_operations);
    CollectCompletions();
  }
  bool worked = false;
  for (size_t i = attachments_.size(); i-- > 0;) {
    worked = worked || attachments_[i]->has_finished();
    if (const absl::Status status = attachments_[i]->CompleteQueries(); !status.ok()) Remove(i, status);
  }
  return worked;
}

bool DataPlane::RunBulk() {
  bool worked = false;
  for (size_t i = attachments_.size(); i-- > 0;) {
    if (const absl::Status status = attachments_[i]->WorkOnBulk(kBulkSlice, &worked); !status.ok()) {
      Remove(i, status);
    }
  }
  return worked;
}

void DataPlane::CheckPeers() {
  for (size_t i = attachments_.size(); i-- > 0;) {
    if (attachments_[i]->transport_attachment().lost()) Remove(i, Unavailable("the worker closed"));
  }
}

// Whether the device works on operations of any owner.
bool DataPlane::DeviceBusy() const {
  return !work_.operations.empty() || !leaving_.empty() ||
         std::any_of(attachments_.begin(), attachments_.end(),
                     [](const auto& attachment) { return attachment->arriving(); });
}

// Collects finished operations of the device while there is no other work. True when there were any.
bool DataPlane::DeviceHasNews() {
  if (CollectCompletions() > 0) return true;
  bool worked = false;
  for (const Leaving& left : leaving_) {
    if (left.attachment->arriving()) (void)left.attachment->WorkOnBulk({}, &worked);
  }
  for (size_t i = attachments_.size(); i-- > 0;) {
    if (!attachments_[i]->arriving()) continue;
    if (const absl::Status status = attachments_[i]->WorkOnBulk({}, &worked); !status.ok()) {
      Remove(i, status);
      return true;
    }
  }
  return worked;
}

// Time at which the operations under way have reached operation_timeout_ms.
Clock::time_point DataPlane::Deadline() const {
  Clock::time_point since = Clock::time_point::max();
  if (!work_.operations.empty()) since = waiting_since_;
  const auto look = [&](const Attachment& attachment) {
    if (attachment.arriving()) since = std::min(since, attachment.arriving_since());
  };
  for (const std::unique_ptr<Attachment>& attachment : attachments_) look(*attachment);
  for (const Leaving& left : leaving_) look(*left.attachment);
  const std::chrono::milliseconds allowed(options_.operation_timeout_ms);
  return since == Clock::time_point::max() ? since : since + allowed;
}

void DataPlane::CheckDevice() {
  if (reset_at_ == Clock::time_point()) {
    // Completions that arrived while this thread was delayed still count.
    if (DeviceBusy() && Clock::now() >= Deadline() && !DeviceHasNews()) FailDevice();
    return;
  }
  while (!attachments_.empty()) Remove(attachments_.size() - 1, Unavailable("the device cannot be used"));
  if (Clock::now() < reset_at_ + kResetInterval) return;
  reset_at_ = Clock::now();
  const absl::Status reset = device_->Reset();
  if (!reset.ok() && !absl::IsDataLoss(reset)) return;
  spdlog::info("{}: the device can be used again", device_name_);
  reset_at_ = {};
  std::lock_guard lock(mutex_);
  device_error_.clear();
}

void DataPlane::FailDevice() {
  Add(counters_.device_failures, 1);
  const absl::Status reset = device_->Reset();
  spdlog::error("{}: {} operations under way, no answer for {} ms; the device is reset: {}", device_name_,
                work_.submitted, options_.operation_timeout_ms,
                reset.ok() ? "its indexes are there" : std::string(reset.message()));
  if (!reset.ok() && !absl::IsDataLoss(reset)) {
    reset_at_ = Clock::now();
    std::lock_guard lock(mutex_);
    device_error_ = std::string(reset.message());
  }
  FailUnderWay(reset);
}

// Answers all queries, submitted to the device or not, with kStatusDeviceFailed.
void DataPlane::FinishFailed() {
  for (size_t i = 0; i < work_.operations.size(); ++i) {
    const layout::Descriptor& d = work_.operations[i].descriptor;
    layout::Completion failed{};
    failed.index_id = d.index_id;
    failed.energy_uj = layout::kEnergyUnknown;
    failed.status = layout::kStatusDeviceFailed;
    failed.detail = layout::kNoDetail;
    failed.seq = d.seq;
    work_.origins[i].attachment->Finish(work_.operations[i], failed);
  }
  work_.operations.clear();
  work_.origins.clear();
  work_.submitted = 0;
}

// Called after a reset. If the reset lost the indexes, the attachments that had any end.
void DataPlane::FailUnderWay(const absl::Status& reset) {
  const bool lost = !reset.ok();
  FinishFailed();
  for (Leaving& left : leaving_) attachments_.push_back(std::move(left.attachment));
  const size_t staying = attachments_.size() - leaving_.size();
  std::vector<memory_device::OwnerUsage> usage;
  for (const std::unique_ptr<Attachment>& attachment : attachments_) {
    if (attachment->arriving()) attachment->FailArriving(lost);
    usage.push_back(attachment->Usage());
    if (lost) attachment->ForgetIndexes();
  }
  if (lost) table_->Forget();
  for (size_t i = attachments_.size(); i-- > 0;) {
    std::string why;
    if (i >= staying) {
      why = std::move(leaving_[i - staying].why);
    } else if (const absl::Status status = attachments_[i]->CompleteQueries(); !status.ok()) {
      why = std::string(status.message());
    } else if (lost && usage[i].indexes > 0) {
      why = std::string(reset.message());
    } else {
      continue;
    }
    std::unique_ptr<Attachment> attachment = std::move(attachments_[i]);
    attachments_.erase(attachments_.begin() + static_cast<ptrdiff_t>(i));
    Erase(std::move(attachment), usage[i], why);
  }
  leaving_.clear();
}

bool DataPlane::Ready() const {
  if (called_.load(std::memory_order_acquire)) return true;
  const bool room = work_.operations.size() < kBatch;
  return std::any_of(attachments_.begin(), attachments_.end(), [room](const auto& attachment) {
    attachment->transport_attachment().Progress();
    return attachment->Ready(room);
  });
}

void DataPlane::Sleep() {
  fds_.assign(1, {wake_.get(), POLLIN, 0});
  bool asleep = true;
  for (const std::unique_ptr<Attachment>& attachment : attachments_) {
    attachment->transport_attachment().SetAsleep(true);
    pollfd fds[2];
    asleep = attachment->transport_attachment().PrepareSleep(fds) && asleep;
    fds_.insert(fds_.end(), std::begin(fds), std::end(fds));
  }
  int sleep_ms = kMaxSleepMs;
  if (DeviceBusy()) {
    const int fd = device_->event_fd();
    if (fd >= 0) fds_.push_back({fd, POLLIN, 0});
    const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(Deadline() - Clock::now()).count();
    sleep_ms = fd < 0 ? kDeviceSleepMs : static_cast<int>(std::clamp<int64_t>(left_ms, 0, kMaxSleepMs));
  }
  if (asleep && !Ready()) {
    Add(counters_.sleeps, 1);
    (void)::poll(fds_.data(), fds_.size(), sleep_ms);
    for (size_t i = attachments_.size(); i-- > 0;) {
      // A closed socket is checked at once, not at the next regular check.
      const bool closed =
          ((fds_[1 + 2 * i].revents | fds_[2 + 2 * i].revents) & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
      if (closed) (void)attachments_[i]->transport_attachment().lost(true);
    }
  }
  for (const std::unique_ptr<Attachment>& attachment : attachments_)
    attachment->transport_attachment().SetAsleep(false);
}

// Called before the thread ends. Afterwards the device accesses no memory of the owners.
void DataPlane::StopDevice() {
  if (!DeviceBusy()) return;
  const absl::Status reset = device_->Reset();
  FailUnderWay(reset);
}

void DataPlane::Run() {
  while (!stop_) {
    TakeCalls();
    CheckDevice();
    const bool queried = RunQueries();
    const bool bulk = RunBulk();
    CheckPeers();
    RemoveLeft();
    if (queried || bulk) continue;
    if (!SpinUntil([&] { return Ready() || DeviceHasNews(); })) Sleep();
  }
  StopDevice();
  while (!attachments_.empty()) Remove(attachments_.size() - 1, absl::CancelledError("the service stops"));
}

}  // namespace mnemo::memory_service
