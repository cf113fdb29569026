// A service that answers every descriptor, for tests of attachments.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/base/wait.h"
#include "devices/transport/listener.h"
#include "devices/transport/memory_attachment.h"
#include "proto/layout/layout_hash.h"

namespace mnemo::transport {

using layout::AttachHello;
using layout::Completion;
using layout::Descriptor;

inline std::string SocketPath() {
  static std::atomic<int> count = 0;
  return "/tmp/mnemo-attach-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

inline AttachHello Limits() {
  AttachHello limits = layout::NewHello();
  limits.ops = limits.formats = 0xFFFFFFFF;
  limits.max_indexes = 10;
  limits.quota_bytes = 1 << 30;
  limits.region_bytes = 1 << 20;
  limits.bulk_slots = 16;
  limits.query_slots = 64;
  limits.regions = 1;
  return limits;
}

// Grants everything; hands over one attachment after the other.
class TestHost : public ListenerHost {
 public:
  absl::StatusOr<AttachHello> Grant(const std::string& owner, const AttachHello& wanted) override {
    if (owner == "unwanted") return ResourceExhausted("owners: 1 attached, 1 allowed");
    absl::StatusOr<AttachHello> granted = GrantWithin(wanted, Limits());
    if (granted.ok()) granted->epoch = ++epoch_;
    return granted;
  }
  void Attached(uint16_t, std::unique_ptr<ServiceAttachment> attachment) override {
    std::lock_guard lock(mutex_);
    attachments_.push_back(std::move(attachment));
    changed_.notify_all();
  }
  std::unique_ptr<ServiceAttachment> Next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !attachments_.empty(); });
    std::unique_ptr<ServiceAttachment> attachment = std::move(attachments_.front());
    attachments_.erase(attachments_.begin());
    return attachment;
  }

 private:
  uint16_t epoch_ = 6;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<ServiceAttachment>> attachments_;
};

inline AttachOptions Options(const std::string& path) {
  AttachOptions options;
  options.address = "unix:" + path;
  options.owner = "worker0";
  options.wanted = layout::NewHello();
  return options;
}

// Serves until work() is false or the peer is gone.
inline void ServeLoop(ServiceAttachment& attachment, const std::function<bool()>& work) {
  while (work() && !attachment.lost()) {
    const auto ready = [&] {
      attachment.Progress();
      return attachment.Ready(Ring::kBulk) || attachment.Ready(Ring::kQuery);
    };
    if (SpinUntil(ready)) continue;
    pollfd fds[2];
    attachment.SetAsleep(true);
    if (attachment.PrepareSleep(fds) && !ready()) ::poll(fds, 2, 1000);
    attachment.SetAsleep(false);
  }
}

// Answers each descriptor: count is its k, and the results are the payload's bytes plus 1.
inline bool Echo(ServiceAttachment& attachment) {
  for (const Ring ring : {Ring::kQuery, Ring::kBulk}) {
    Descriptor taken[64];
    const absl::StatusOr<uint32_t> count = attachment.Take(ring, taken);
    if (!count.ok()) return false;
    std::vector<Completion> done;
    for (uint32_t i = 0; i < *count; ++i) {
      const Descriptor& d = taken[i];
      const size_t from = size_t{d.payload_offset} * 64;
      const size_t to = size_t{d.result_offset} * 64;
      for (size_t b = 0; b < size_t{d.result_length} * 64; ++b) {
        attachment.data()[to + b] = static_cast<uint8_t>(attachment.data()[from + b] + 1);
      }
      if (!attachment.PushResults(to, size_t{d.result_length} * 64).ok()) return false;
      Completion completion{};
      completion.count = d.k;
      completion.index_id = d.epoch;
      completion.seq = d.seq;
      done.push_back(completion);
    }
    if (!attachment.Complete(ring, done).ok()) return false;
  }
  return true;
}

// A service of one attachment on its own thread.
class EchoService {
 public:
  explicit EchoService(const std::string& path) : path_(path) {
    absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Create(path, "memory0:test", &host_);
    MNEMO_CHECK(listener.ok());
    listener_ = std::move(*listener);
    thread_ = std::thread([this] {
      const std::unique_ptr<ServiceAttachment> attachment = host_.Next();
      ServeLoop(*attachment, [&] { return !stop_ && Echo(*attachment); });
    });
  }
  ~EchoService() {
    stop_ = true;
    thread_.join();
  }

 private:
  const std::string path_;
  TestHost host_;
  std::unique_ptr<Listener> listener_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace mnemo::transport
