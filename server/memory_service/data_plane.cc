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
using transport::Ring;

constexpr uint32_t kBatch = 256;       // operations of all owners that the device gets together
constexpr uint32_t kOwnersBatch = 64;  // of one owner
constexpr std::chrono::microseconds kBulkSlice{200};
constexpr uint32_t kMaxOwners = 64;
constexpr size_t kMaxQuotas = 1024;  // owners with a quota of their own
constexpr int kMaxSleepMs = 1000;
// Within which the end of a worker is noticed.
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
  MNEMO_ASSIGN_OR_RETURN(store_, memory_device::IndexStore::Create({.capacity_bytes = options_.memory_bytes,
                                                                    .max_owners = options_.max_owners,
                                                                    .threads = options_.threads,
                                                                    .isa = options_.isa}));
  MNEMO_ASSIGN_OR_RETURN(device_, memory_device::MakeMemoryDevice({.kind = options_.device,
                                                                   .name = device_name_,
                                                                   .threads = options_.threads,
                                                                   .isa = options_.isa,
                                                                   .max_operations = kBatch,
                                                                   .max_tokens = options_.max_tokens,
                                                                   .device_options = options_.device_options},
                                                                  store_.get()));
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
  work_.operations.reserve(kBatch);
  work_.origins.reserve(kBatch);
  completions_.resize(kBatch);
  attachments_.reserve(options_.max_owners);
  fds_.reserve(1 + 2 * size_t{options_.max_owners});
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

void DataPlane::Notify() {
  called_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // Full means that it has been rung already.
  MNEMO_CHECK(::write(wake_.get(), &one, sizeof one) == sizeof one || errno == EAGAIN);
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
  if (draining_) return Unavailable("{}: draining, takes no new owners", device_name_);
  const auto has_room = [&] { return entries_.size() < options_.max_owners; };
  const auto has_memory = [&] {
    const uint64_t quota = QuotaLocked(owner);
    return (wanted.quota_bytes == 0 ? quota : std::min(quota, wanted.quota_bytes)) <=
           options_.memory_bytes - granted_bytes_;
  };
  if (!has_room() || !has_memory()) {
    // One that has just gone may not be noticed yet.
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

void DataPlane::Attached(uint16_t epoch, std::unique_ptr<transport::ServiceLink> link) {
  {
    std::lock_guard lock(mutex_);
    const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& candidate) { return candidate.epoch == epoch; });
    MNEMO_CHECK(entry != entries_.end());
    if (link == nullptr) {
      granted_bytes_ -= entry->quota_bytes;
      entries_.erase(entry);
      room_.notify_all();
      return;
    }
    entry->pid = link->attached().pid;
    arrived_.push_back(std::move(link));
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

// What other threads want: new links, ends, draining.
void DataPlane::TakeCalls() {
  if (!called_.exchange(false, std::memory_order_acquire)) return;
  uint64_t rung;
  (void)!::read(wake_.get(), &rung, sizeof rung);
  std::vector<std::unique_ptr<transport::ServiceLink>> arrived;
  std::vector<uint16_t> dropped;
  {
    std::lock_guard lock(mutex_);
    arrived.swap(arrived_);
    store_->Drain(draining_);
  }
  for (std::unique_ptr<transport::ServiceLink>& link : arrived) {
    const transport::Attached attached = link->attached();
    // The quotas granted are what the store has room for.
    absl::StatusOr<std::unique_ptr<Attachment>> attachment =
        Attachment::Create(std::move(link), store_.get(), &counters_);
    MNEMO_CHECK(attachment.ok());
    spdlog::info("{} (pid {}) attached as {}, quota {} bytes", attached.owner, attached.pid,
                 attached.granted.epoch, attached.granted.quota_bytes);
    std::lock_guard lock(mutex_);
    for (Entry& entry : entries_) {
      if (entry.epoch == attached.granted.epoch) entry.counters = &(*attachment)->counters();
    }
    attachments_.push_back(std::move(*attachment));
  }
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
  const std::unique_ptr<Attachment> attachment = std::move(attachments_[index]);
  attachments_.erase(attachments_.begin() + static_cast<ptrdiff_t>(index));
  const transport::Attached& attached = attachment->attached();
  const memory_device::OwnerStats usage = attachment->Usage();
  spdlog::info("{} (pid {}) detached as {} with {} indexes of {} bytes: {}", attached.owner, attached.pid,
               attached.granted.epoch, usage.indexes, usage.held_bytes, std::string(why.message()));
  std::lock_guard lock(mutex_);
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& candidate) {
    return candidate.epoch == attached.granted.epoch;
  });
  MNEMO_CHECK(entry != entries_.end());
  entry->counters = nullptr;
  if (usage.indexes > 0) ++lost_owners_;
  granted_bytes_ -= entry->quota_bytes;
  entries_.erase(entry);
  room_.notify_all();
}

bool DataPlane::RunQueries() {
  work_.operations.clear();
  work_.origins.clear();
  // Each turn another owner is the first, so that a full batch leaves nobody out for ever.
  ++turn_;
  for (size_t n = 0; n < attachments_.size(); ++n) {
    Attachment& attachment = *attachments_[(turn_ + n) % attachments_.size()];
    const uint32_t room = kBatch - static_cast<uint32_t>(work_.operations.size());
    attachment.TakeQueries(std::min(room, kOwnersBatch), &work_);
  }
  if (!work_.operations.empty()) Add(counters_.batches, 1);
  size_t submitted = 0;
  size_t finished = 0;
  while (finished < work_.operations.size()) {
    submitted += device_->Submit(std::span(work_.operations).subspan(submitted));
    const size_t count = device_->Poll(std::span(completions_).subspan(0, submitted - finished));
    for (size_t i = 0; i < count; ++i, ++finished) {
      const QueryWork::Origin& origin = work_.origins[finished];
      completions_[i].queue_ns = static_cast<uint32_t>(std::min<int64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(work_.begun_at - origin.taken_at).count(),
          UINT32_MAX));
      origin.attachment->AddCompletion(work_.operations[finished], completions_[i]);
    }
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
    if (attachments_[i]->link().lost()) Remove(i, Unavailable("the worker closed"));
  }
}

bool DataPlane::Ready() const {
  if (called_.load(std::memory_order_acquire)) return true;
  return std::any_of(attachments_.begin(), attachments_.end(), [](const auto& attachment) {
    attachment->link().Progress();
    return attachment->link().Ready(Ring::kQuery) || attachment->link().Ready(Ring::kBulk);
  });
}

void DataPlane::Sleep() {
  fds_.assign(1, {wake_.get(), POLLIN, 0});
  bool asleep = true;
  for (const std::unique_ptr<Attachment>& attachment : attachments_) {
    attachment->link().SetAsleep(true);
    pollfd fds[2];
    asleep = attachment->link().PrepareSleep(fds) && asleep;
    fds_.insert(fds_.end(), std::begin(fds), std::end(fds));
  }
  if (asleep && !Ready()) {
    Add(counters_.sleeps, 1);
    (void)::poll(fds_.data(), fds_.size(), kMaxSleepMs);
    for (size_t i = attachments_.size(); i-- > 0;) {
      // What poll has seen is asked again at once, not when it is due.
      const bool closed =
          ((fds_[1 + 2 * i].revents | fds_[2 + 2 * i].revents) & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
      if (closed) (void)attachments_[i]->link().lost(true);
    }
  }
  for (const std::unique_ptr<Attachment>& attachment : attachments_) attachment->link().SetAsleep(false);
}

void DataPlane::Run() {
  while (!stop_) {
    TakeCalls();
    const bool queried = RunQueries();
    const bool bulk = RunBulk();
    CheckPeers();
    if (queried || bulk) continue;
    if (!SpinUntil([&] { return Ready(); })) Sleep();
  }
  while (!attachments_.empty()) Remove(attachments_.size() - 1, absl::CancelledError("the service stops"));
}

}  // namespace mnemo::memory_service
