#include "devices/transport/channel_attachment.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "devices/base/wait.h"
#include "devices/transport/handshake.h"
#include "devices/transport/rings.h"

namespace mnemo::transport {
namespace {

using layout::Completion;
using layout::Descriptor;

class ChannelAttachment final : public MemoryAttachment {
 public:
  ChannelAttachment(AttachmentInfo info, const RegionPlan& plan, std::unique_ptr<Channel> channel)
      : info_(std::move(info)),
        plan_(plan),
        channel_(std::move(channel)),
        queues_{{*channel_, plan_, 0}, {*channel_, plan_, 1}} {}

  const AttachmentInfo& info() const override { return info_; }
  uint32_t credits(Ring ring) const override { return At(ring).credits; }
  absl::Status Submit(Ring ring, std::span<Descriptor> batch) override;
  size_t Poll(Ring ring, std::span<Completion> out) override;
  absl::Status Wait(Ring ring, std::chrono::nanoseconds timeout) override;
  bool lost() const override { return broken_.load(std::memory_order_relaxed) || channel_->lost(false); }

 private:
  // One request ring, its completions, and their state in memory that the peer cannot write.
  struct Queue {
    Queue(Channel& channel, const RegionPlan& plan, int i)
        : requests(channel, plan.requests[i], plan.slots[i]),
          completions(channel, plan.completions[i], plan.slots[i]),
          slots(plan.slots[i]),
          credits(plan.slots[i]) {}
    RingProducer requests;
    RingConsumer completions;
    const uint32_t slots;
    uint32_t credits;
    uint32_t next_seq = kFirstSeq;
    // A wait has timed out.
    bool failed = false;
  };

  Queue& At(Ring ring) { return queues_[RingIndex(ring)]; }
  const Queue& At(Ring ring) const { return queues_[RingIndex(ring)]; }
  absl::Status Broken(const absl::Status& status) {
    broken_.store(true, std::memory_order_relaxed);
    return status;
  }
  absl::Status Gone() const { return Unavailable("{}: the memory service is gone", info_.device_name); }
  absl::Status PushPayload(const Descriptor& descriptor);
  absl::Status Sleep(Queue& queue, std::chrono::steady_clock::time_point until);

  const AttachmentInfo info_;
  const RegionPlan plan_;
  const std::unique_ptr<Channel> channel_;
  Queue queues_[kRings];
  std::atomic<bool> broken_ = false;
};

// The service refuses a payload outside of the region and names the field.
absl::Status ChannelAttachment::PushPayload(const Descriptor& descriptor) {
  const uint64_t offset = uint64_t{descriptor.payload_offset} * layout::kUnitBytes;
  const uint64_t length = uint64_t{descriptor.payload_length} * layout::kUnitBytes;
  if (length == 0 || offset + length > plan_.data_bytes) return absl::OkStatus();
  return channel_->Write(plan_.data + offset, length);
}

absl::Status ChannelAttachment::Submit(Ring ring, std::span<Descriptor> batch) {
  Queue& queue = At(ring);
  if (lost()) return Gone();
  if (queue.failed) {
    return FailedPrecondition("{}: the ring has failed and waits for its attachment to end",
                              info_.device_name);
  }
  if (batch.size() > queue.credits) {
    return ResourceExhausted("{}: {} descriptors, {} credits", info_.device_name, batch.size(),
                             queue.credits);
  }
  const absl::StatusOr<uint32_t> free = queue.requests.Free(static_cast<uint32_t>(batch.size()));
  if (!free.ok()) return Broken(free.status());
  // A completed descriptor has left the ring, unless the peer did not advance its index.
  if (*free < batch.size()) return Broken(Unavailable("{}: the peer broke the ring", info_.device_name));
  for (Descriptor& descriptor : batch) {
    descriptor.epoch = info_.granted.epoch;
    descriptor.seq = queue.next_seq++;
    if (absl::Status status = PushPayload(descriptor); !status.ok()) return Broken(status);
  }
  queue.credits -= static_cast<uint32_t>(batch.size());
  absl::Status status = queue.requests.Put(std::span<const Descriptor>(batch));
  return status.ok() ? status : Broken(status);
}

size_t ChannelAttachment::Poll(Ring ring, std::span<Completion> out) {
  Queue& queue = At(ring);
  channel_->Progress();
  const absl::StatusOr<uint32_t> taken = queue.completions.Take(out);
  // More than this end asked for.
  if (!taken.ok() || *taken > queue.slots - queue.credits) {
    broken_.store(true, std::memory_order_relaxed);
    return 0;
  }
  queue.credits += *taken;
  return *taken;
}

absl::Status ChannelAttachment::Wait(Ring ring, std::chrono::nanoseconds timeout) {
  Queue& queue = At(ring);
  const auto look = [&] {
    channel_->Progress();
    return queue.completions.Ready();
  };
  if (SpinUntil(look)) return absl::OkStatus();
  const auto until = std::chrono::steady_clock::now() + timeout;
  while (true) {
    MNEMO_RETURN_IF_ERROR(Sleep(queue, until));
    if (look()) return absl::OkStatus();
    if (broken_.load(std::memory_order_relaxed) || channel_->lost(true)) return Gone();
    if (std::chrono::steady_clock::now() >= until) {
      queue.failed = true;
      return absl::DeadlineExceededError(
          fmt::format("{}: no completion within {} ms", info_.device_name,
                      std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count()));
    }
  }
}

// Sleeps until a wake-up, the peer's end, or the given time. May return early; that is harmless.
absl::Status ChannelAttachment::Sleep(Queue& queue, std::chrono::steady_clock::time_point until) {
  const auto left = until - std::chrono::steady_clock::now();
  if (left.count() <= 0) return absl::OkStatus();
  pollfd fds[2];
  queue.completions.SetAsleep(true);
  if (channel_->PrepareSleep(fds) && !queue.completions.Ready()) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec time = {seconds.count(),
                           std::chrono::duration_cast<std::chrono::nanoseconds>(left - seconds).count()};
    if (::ppoll(fds, 2, &time, nullptr) < 0 && errno != EINTR) {
      return Broken(Internal("poll: errno {}", errno));
    }
  }
  queue.completions.SetAsleep(false);
  return absl::OkStatus();
}

// Divides the region in the requested shares, at multiples of a page.
absl::Status Divide(const AttachOptions& options, const RegionPlan& plan, std::span<std::byte> memory,
                    AttachmentInfo& info) {
  constexpr uint64_t kAlignment = 1024;
  const uint64_t sum =
      uint64_t{options.bulk_payload_share} + options.query_payload_share + options.results_share;
  if (sum == 0) return InvalidArgument("the shares of the region are all zero");
  uint8_t* const data = reinterpret_cast<uint8_t*>(memory.data()) + plan.data;
  const auto part = [&](uint64_t shares) {
    const uint64_t units = plan.data_bytes / kAlignment;
    return static_cast<uint64_t>(static_cast<unsigned __int128>(units) * shares / sum) * kAlignment;
  };
  const uint64_t query = part(options.bulk_payload_share);
  const uint64_t results = part(uint64_t{options.bulk_payload_share} + options.query_payload_share);
  info.bulk_payload = {{data, query}, 0, 0};
  info.query_payload = {{data + query, results - query}, 0, query};
  info.results = {{data + results, plan.data_bytes - results}, 0, results};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryAttachment>> MakeChannelAttachment(const AttachOptions& options,
                                                                        const layout::AttachHello& granted,
                                                                        const std::string& device_name,
                                                                        std::unique_ptr<Channel> channel) {
  const RegionPlan plan = PlanRegion(granted);
  MNEMO_CHECK(channel->memory().size() >= plan.total_bytes);
  for (const Ring ring : {Ring::kBulk, Ring::kQuery}) {
    const int i = RingIndex(ring);
    MNEMO_RETURN_IF_ERROR(CheckRing(*channel, plan.requests[i], plan.slots[i],
                                    static_cast<layout::RingKind>(ring), granted.epoch));
    MNEMO_RETURN_IF_ERROR(
        CheckRing(*channel, plan.completions[i], plan.slots[i], layout::kRingCompletions, granted.epoch));
  }
  AttachmentInfo info;
  info.granted = granted;
  info.device_name = device_name;
  MNEMO_RETURN_IF_ERROR(Divide(options, plan, channel->memory(), info));
  return std::make_unique<ChannelAttachment>(std::move(info), plan, std::move(channel));
}

}  // namespace mnemo::transport
