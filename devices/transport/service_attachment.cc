#include "devices/transport/service_attachment.h"

#include <algorithm>
#include <utility>

#include "devices/base/range.h"

namespace mnemo::transport {
namespace {

// Makes the rings before their ends are constructed.
Channel& WithRings(Channel& channel, const RegionPlan& plan, uint16_t epoch) {
  for (const Ring ring : {Ring::kBulk, Ring::kQuery}) {
    const int i = RingIndex(ring);
    MakeRing(channel, plan.requests[i], plan.slots[i], static_cast<layout::RingKind>(ring), epoch);
    MakeRing(channel, plan.completions[i], plan.slots[i], layout::kRingCompletions, epoch);
  }
  return channel;
}

}  // namespace

ServiceAttachment::ServiceAttachment(Attached attached, std::unique_ptr<Channel> channel)
    : attached_(std::move(attached)),
      plan_(PlanRegion(attached_.granted)),
      channel_(std::move(channel)),
      requests_{{WithRings(*channel_, plan_, attached_.granted.epoch), plan_.requests[0], plan_.slots[0]},
                {*channel_, plan_.requests[1], plan_.slots[1]}},
      completions_{{*channel_, plan_.completions[0], plan_.slots[0]},
                   {*channel_, plan_.completions[1], plan_.slots[1]}} {}

std::span<uint8_t> ServiceAttachment::data() const {
  return {reinterpret_cast<uint8_t*>(channel_->memory().data()) + plan_.data, plan_.data_bytes};
}

absl::StatusOr<uint32_t> ServiceAttachment::Take(Ring ring, std::span<layout::Descriptor> out) {
  const int i = RingIndex(ring);
  channel_->Progress();
  const size_t wanted = std::min<size_t>(requests_[i].waiting(), out.size());
  if (wanted == 0) return 0U;
  MNEMO_ASSIGN_OR_RETURN(const uint32_t room, Room(i, static_cast<uint32_t>(wanted)));
  MNEMO_ASSIGN_OR_RETURN(const uint32_t taken,
                         requests_[i].Take(out.subspan(0, std::min<size_t>(wanted, room))));
  under_way_[i] += taken;
  return taken;
}

absl::Status ServiceAttachment::PushResults(uint64_t offset_bytes, uint64_t length_bytes) {
  MNEMO_CHECK(IsWithin(offset_bytes, length_bytes, plan_.data_bytes));
  return channel_->Write(plan_.data + offset_bytes, length_bytes);
}

absl::Status ServiceAttachment::Complete(Ring ring, std::span<const layout::Completion> completions) {
  const int i = RingIndex(ring);
  const uint32_t count = static_cast<uint32_t>(completions.size());
  MNEMO_CHECK(count <= under_way_[i]);
  // Take reserved the room. Only the worker's index, which may be broken, can contradict that.
  MNEMO_ASSIGN_OR_RETURN(const uint32_t free, completions_[i].Free(count));
  if (free < count) return Unavailable("the peer broke its completion ring: {} of {} slots", free, count);
  under_way_[i] -= count;
  return completions_[i].Put(completions);
}

absl::StatusOr<uint32_t> ServiceAttachment::Room(int i, uint32_t enough) const {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t free, completions_[i].Free(under_way_[i] + enough));
  return free - std::min(free, under_way_[i]);
}

bool ServiceAttachment::Ready(Ring ring) const {
  const int i = RingIndex(ring);
  if (!requests_[i].Ready()) return false;
  const absl::StatusOr<uint32_t> room = Room(i, 1);
  return !room.ok() || *room > 0;
}

void ServiceAttachment::SetAsleep(bool asleep) {
  for (RingConsumer& ring : requests_) ring.SetAsleep(asleep);
}

}  // namespace mnemo::transport
