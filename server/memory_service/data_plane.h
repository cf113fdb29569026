// The data plane of a memory service: one thread takes the descriptors of all attached workers and passes
// them to the memory device.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/base/unique_fd.h"
#include "devices/transport/listener.h"
#include "server/memory_service/attachment.h"
#include "server/memory_service/plane_stats.h"

namespace mnemo::memory_service {

// Queries of all owners go to the device together. Between two such batches each owner has a slice of time
// for its bulk operations, so that an append of many pages delays no query for long. While a device computes,
// the thread serves bulk operations, new workers and ends. Only an operation that changes or frees an index
// waits for those under way on that index. A device that does not finish an operation in time is reset:
// operations under way fail, and the attachments whose indexes are lost end. The thread polls for work for at
// most 300 us. Then it sleeps until a doorbell, the end of a worker, an event of the device or a call of this
// class. Death, hang or invalid input of an owner affects its attachment alone.
class DataPlane final : public transport::ListenerHost {
 public:
  struct Options {
    std::string name = "memory";
    std::string device = "cpu";  // kind, as registered (devices/memory/memory_device_registry.h)
    // KEY and VALUE of options that are specific to the kind.
    std::vector<std::pair<std::string, std::string>> device_options;
    // Longest time of an operation before the device is reset; at least 1.
    int operation_timeout_ms = 1000;
    std::string isa = "auto";
    int threads = 1;
    uint64_t memory_bytes = uint64_t{1} << 30;
    uint64_t quota_bytes = 0;  // for each owner; 0 = memory_bytes / max_owners
    uint64_t region_bytes = 64 << 20;
    uint32_t max_owners = 8;  // at most 64
    uint32_t max_indexes = 1024;
    uint32_t max_tokens = 1 << 20;
    uint32_t bulk_slots = 256;
    uint32_t query_slots = 1024;
  };
  // Starts the thread. INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<DataPlane>> Create(const Options& options);
  // Ends all attachments. The caller ensures that Grant and Attached are no longer called.
  ~DataPlane() override;

  absl::StatusOr<layout::AttachHello> Grant(const std::string& owner,
                                            const layout::AttachHello& wanted) override;
  void Attached(uint16_t epoch, std::unique_ptr<transport::ServiceAttachment> attachment) override;

  // Any thread may call the functions below.
  const std::string& device_name() const { return device_name_; }  // "memory0:cpu"
  const Options& options() const { return options_; }
  const layout::AttachHello& limits() const { return limits_; }
  bool simulated_time() const { return simulated_time_; }                    // memory_device.h
  uint64_t record_capacity_bytes() const { return record_capacity_bytes_; }  // record_memory.h, at the start
  const std::string& energy_source() const { return energy_source_; }
  // The device's own counters, which this asks the thread for. Waits for up to 1 s; then returns the last
  // ones that are known.
  std::vector<memory_device::DeviceCounter> DeviceCounters() const;
  // Those that are known, at once; the thread is asked for new ones for the next call.
  std::vector<memory_device::DeviceCounter> LastDeviceCounters() const;
  const PlaneCounters& counters() const { return counters_; }
  PlaneStats Stats() const;
  // While draining, no new indexes and owners are accepted.
  void Drain(bool draining);
  // Sets the quota from the owner's next attachment on; 0 = the default. RESOURCE_EXHAUSTED: it is more than
  // the memory of all indexes, or too many owners have a quota of their own.
  absl::Status SetQuota(const std::string& owner, uint64_t quota_bytes);
  // Bytes that the owner is granted at its next attachment, unless less memory is left.
  uint64_t Quota(const std::string& owner) const;
  // Ends the attachments of this name; with `epoch` not 0 only the one of that epoch. Returns their number.
  uint32_t Drop(const std::string& owner, uint16_t epoch);

 private:
  // An attachment as seen by other threads.
  struct Entry {
    std::string owner;
    uint16_t epoch = 0;
    int pid = 0;
    uint64_t quota_bytes = 0;
    OwnerCounters* counters = nullptr;  // null until the thread has taken over the attachment
    bool drop = false;
  };

  explicit DataPlane(const Options& options);
  absl::Status Start();
  void Run();
  void Notify() const;
  void AnswerCounters();
  void TakeCalls();
  void Attach(std::unique_ptr<transport::ServiceAttachment> attachment);
  // Ends an attachment; the object stays until the device has finished with it.
  void Remove(size_t index, const absl::Status& why);
  void RemoveLeft();
  void Erase(std::unique_ptr<Attachment> attachment, const memory_device::OwnerUsage& usage,
             const std::string& why);
  void SubmitQueries(size_t old_operations);
  size_t CollectCompletions();
  bool RunQueries();
  bool RunBulk();
  void CheckPeers();
  bool DeviceBusy() const;
  bool DeviceHasNews();
  Clock::time_point Deadline() const;
  void CheckDevice();
  void FailDevice();
  void FailUnderWay(const absl::Status& reset);
  void FinishFailed();
  bool Ready() const;
  void Sleep();
  void StopDevice();
  uint64_t QuotaLocked(const std::string& owner) const;

  const Options options_;
  const std::string device_name_;
  layout::AttachHello limits_;
  bool simulated_time_ = false;
  uint64_t record_capacity_bytes_ = UINT64_MAX;
  bool has_counters_ = false;
  std::string energy_source_;
  PlaneCounters counters_;

  // Used by the thread alone.
  std::unique_ptr<memory_device::MemoryDevice> device_;
  std::unique_ptr<memory_device::IndexTable> table_;  // over the device's memory
  std::vector<std::unique_ptr<Attachment>> attachments_;
  struct Leaving {
    std::unique_ptr<Attachment> attachment;
    std::string why;
  };
  std::vector<Leaving> leaving_;  // until the device has finished with them
  QueryWork work_;
  std::vector<layout::Completion> completions_;
  std::vector<pollfd> fds_;
  size_t turn_ = 0;
  Clock::time_point waiting_since_{};  // for the first of the operations under way
  Clock::time_point reset_at_{};       // of the last attempt, while the device cannot be used

  UniqueFd wake_;  // eventfd
  mutable std::atomic<bool> called_ = false;
  std::atomic<bool> stop_ = false;
  mutable std::mutex mutex_;
  std::condition_variable room_;  // an owner has gone
  std::vector<std::unique_ptr<transport::ServiceAttachment>> arrived_;
  std::vector<Entry> entries_;
  std::map<std::string, uint64_t> quotas_;
  uint64_t granted_bytes_ = 0;
  uint64_t attachment_count_ = 0;
  uint64_t lost_owners_ = 0;
  uint16_t last_epoch_ = 0;
  bool draining_ = false;
  mutable uint64_t counters_asked_ = 0;
  uint64_t counters_answered_ = 0;  // of those asked
  std::vector<memory_device::DeviceCounter> device_counters_;
  mutable std::condition_variable answered_;
  std::string device_error_;  // why the device cannot be used; empty: it can
  std::thread thread_;
};

}  // namespace mnemo::memory_service
