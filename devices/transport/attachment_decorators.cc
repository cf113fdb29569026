#include "devices/transport/attachment_decorators.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <istream>
#include <map>
#include <ostream>
#include <utility>

#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::transport {
namespace {

using layout::Completion;
using layout::Descriptor;

// Forwards every call to the inner attachment; decorators override the calls that they change.
class Forward : public MemoryAttachment {
 public:
  explicit Forward(std::unique_ptr<MemoryAttachment> inner) : inner_(std::move(inner)) {}
  const AttachmentInfo& info() const override { return inner_->info(); }
  uint32_t credits(Ring ring) const override { return inner_->credits(ring); }
  absl::Status Submit(Ring ring, std::span<Descriptor> batch) override { return inner_->Submit(ring, batch); }
  size_t Poll(Ring ring, std::span<Completion> out) override { return inner_->Poll(ring, out); }
  absl::Status Wait(Ring ring, std::chrono::nanoseconds timeout) override {
    return inner_->Wait(ring, timeout);
  }
  bool lost() const override { return inner_->lost(); }

 protected:
  // The region as descriptors see it: its parts are adjacent.
  std::span<const uint8_t> RegionBytes() const {
    const AttachmentInfo& all = info();
    return {all.bulk_payload.bytes.data(), all.results.offset_bytes + all.results.bytes.size()};
  }
  // Returns an empty span when the range is not within the region.
  std::span<const uint8_t> Units(uint32_t offset, uint32_t length) const {
    const std::span<const uint8_t> region = RegionBytes();
    if ((uint64_t{offset} + length) * layout::kUnitBytes > region.size()) return {};
    return region.subspan(size_t{offset} * layout::kUnitBytes, size_t{length} * layout::kUnitBytes);
  }

  const std::unique_ptr<MemoryAttachment> inner_;
};

class CheckedAttachment final : public Forward {
 public:
  CheckedAttachment(std::unique_ptr<MemoryAttachment> inner, Violation violation)
      : Forward(std::move(inner)), violation_(std::move(violation)) {}

  absl::Status Submit(Ring ring, std::span<Descriptor> batch) override {
    for (const Descriptor& d : batch) CheckPlaces(d);
    const uint32_t before = credits(ring);
    absl::Status status = Forward::Submit(ring, batch);
    if (!status.ok()) return status;
    Require(before - credits(ring) == batch.size(), "credits do not fall by what was submitted");
    for (const Descriptor& d : batch) under_way_[RingIndex(ring)][d.seq] = d;
    return status;
  }

  size_t Poll(Ring ring, std::span<Completion> out) override {
    const size_t count = Forward::Poll(ring, out);
    for (const Completion& completion : out.subspan(0, count)) CheckCompletion(ring, completion);
    return count;
  }

 private:
  void Require(bool condition, const std::string& what) {
    if (!condition) violation_(what);
  }
  void CheckPlaces(const Descriptor& d) {
    const std::string name = fmt::format("operation {} of index {}", d.op, d.index_id);
    Require(d.payload_length == 0 || !Units(d.payload_offset, d.payload_length).empty(),
            name + ": its payload reaches outside the region");
    Require(d.result_length == 0 || !Units(d.result_offset, d.result_length).empty(),
            name + ": its results reach outside the region");
    if (d.result_length == 0) return;
    for (const auto& queue : under_way_) {
      for (const auto& [seq, other] : queue) {
        const bool apart = other.result_length == 0 ||
                           uint64_t{other.result_offset} + other.result_length <= d.result_offset ||
                           uint64_t{d.result_offset} + d.result_length <= other.result_offset;
        Require(apart, fmt::format("{}: its results overlap those of seq {}", name, seq));
      }
    }
  }
  void CheckCompletion(Ring ring, const Completion& completion) {
    auto& queue = under_way_[RingIndex(ring)];
    const auto found = queue.find(completion.seq);
    if (found == queue.end()) {
      violation_(fmt::format("completion of seq {}, which is not under way", completion.seq));
      return;
    }
    const Descriptor d = found->second;
    queue.erase(found);
    Require(completion.index_id == d.index_id, fmt::format("completion of seq {}: index_id {}, expected {}",
                                                           d.seq, completion.index_id, d.index_id));
    Require(completion.status <= layout::kStatusDeviceFailed && completion.reserved == 0,
            fmt::format("completion of seq {}: unknown status {}", d.seq, completion.status));
    if (completion.status == layout::kStatusOk && d.op == layout::kOpScoreSelect &&
        d.select_op != layout::kSelectWeightedSum) {
      CheckIds(d, completion);
    }
  }
  void CheckIds(const Descriptor& d, const Completion& completion) {
    const std::span<const uint8_t> results = Units(d.result_offset, d.result_length);
    const uint64_t block = layout::ResultBlockBytes(d.select_op, d.flags, d.k, 0);
    const uint32_t entry_tokens = layout::EntryTokens(d.format, d.flags);
    uint64_t total = 0;
    for (uint32_t n = 0; n < uint32_t{d.queries} * d.heads && (n + 1) * block <= results.size(); ++n) {
      layout::ResultHeader header;
      std::memcpy(&header, results.data() + n * block, sizeof header);
      Require(header.count <= d.k, fmt::format("seq {}: {} ids, k is {}", d.seq, header.count, d.k));
      std::vector<uint32_t> ids(std::min(header.count, d.k));
      if (!ids.empty()) std::memcpy(ids.data(), results.data() + n * block + sizeof header, ids.size() * 4);
      total += ids.size();
      for (size_t i = 0; i < ids.size(); ++i) {
        Require(ids[i] >= d.begin / entry_tokens && ids[i] < d.end / entry_tokens,
                fmt::format("seq {}: id {} is outside [{}, {})", d.seq, ids[i], d.begin, d.end));
        Require((d.flags & layout::kFlagByRank) != 0 || i == 0 || ids[i - 1] < ids[i],
                fmt::format("seq {}: ids do not rise at {}", d.seq, i));
      }
    }
    Require(total == completion.count,
            fmt::format("seq {}: {} ids, the completion says {}", d.seq, total, completion.count));
  }

  const Violation violation_;
  std::map<uint32_t, Descriptor> under_way_[kRings];  // by seq
};

// Returns draw n of a seed; stateless.
uint64_t Draw(uint64_t seed, uint64_t n) {
  uint64_t x = seed + (n + 1) * 0x9E3779B97F4A7C15;  // SplitMix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

class FaultyAttachment final : public Forward {
 public:
  FaultyAttachment(std::unique_ptr<MemoryAttachment> inner, const FaultPlan& plan)
      : Forward(std::move(inner)), plan_(plan) {}

  absl::Status Submit(Ring ring, std::span<Descriptor> batch) override {
    if (Happens(plan_.drop_chance)) dropped_.store(true, std::memory_order_relaxed);
    if (lost()) return Gone();
    if (stalled_[RingIndex(ring)]) return FailedPrecondition("{}: the ring has failed", device_name());
    if (Happens(plan_.full_chance)) {
      return ResourceExhausted("{}: {} descriptors, 0 credits", device_name(), batch.size());
    }
    if (batch.empty() || !Happens(plan_.garbage_chance)) return Forward::Submit(ring, batch);
    Descriptor& victim = batch[Draw(plan_.seed, draws_++) % batch.size()];
    const uint8_t op = std::exchange(victim.op, uint8_t{0xEE});
    absl::Status status = Forward::Submit(ring, batch);
    victim.op = op;
    return status;
  }

  size_t Poll(Ring ring, std::span<Completion> out) override {
    if (lost() || stalled_[RingIndex(ring)]) return 0;
    const size_t count = Forward::Poll(ring, out);
    if (count > 0 && Happens(plan_.fail_chance)) {
      Completion& victim = out[Draw(plan_.seed, draws_++) % count];
      victim.status = layout::kStatusDeviceFailed;
      victim.detail = layout::kNoDetail;
    }
    return count;
  }

  absl::Status Wait(Ring ring, std::chrono::nanoseconds timeout) override {
    if (Happens(plan_.drop_chance)) dropped_.store(true, std::memory_order_relaxed);
    if (lost()) return Gone();
    bool& stalled = stalled_[RingIndex(ring)];
    stalled = stalled || Happens(plan_.stall_chance);
    if (stalled) return absl::DeadlineExceededError(device_name() + ": no completion");
    return Forward::Wait(ring, timeout);
  }

  bool lost() const override { return dropped_.load(std::memory_order_relaxed) || Forward::lost(); }

 private:
  bool Happens(uint32_t chance) {
    const uint64_t draw = Draw(plan_.seed, draws_++);
    return ++calls_ > plan_.calls_before && (draw & 0xFFFF) < chance;
  }
  absl::Status Gone() const { return Unavailable("{}: the memory service is gone", device_name()); }

  const FaultPlan plan_;
  uint64_t draws_ = 0;
  uint64_t calls_ = 0;
  std::atomic<bool> dropped_ = false;
  bool stalled_[kRings] = {};
};

struct EventHeader {
  uint32_t magic;
  uint8_t ring;
  uint8_t is_completion;
  uint16_t reserved;
  uint64_t bytes;
};
constexpr uint32_t kEventMagic = 0x4352504D;
constexpr uint64_t kMaxEventBytes = uint64_t{1} << 38;

class RecordedAttachment final : public Forward {
 public:
  RecordedAttachment(std::unique_ptr<MemoryAttachment> inner, std::ostream* out)
      : Forward(std::move(inner)), out_(out) {}

  absl::Status Submit(Ring ring, std::span<Descriptor> batch) override {
    absl::Status status = Forward::Submit(ring, batch);
    if (!status.ok()) return status;
    for (const Descriptor& d : batch) {
      Add(ring, false, &d, Units(d.payload_offset, d.payload_length));
      places_[RingIndex(ring)][d.seq] = {d.result_offset, d.result_length};
    }
    return status;
  }

  size_t Poll(Ring ring, std::span<Completion> out) override {
    const size_t count = Forward::Poll(ring, out);
    auto& places = places_[RingIndex(ring)];
    for (const Completion& completion : out.subspan(0, count)) {
      const auto found = places.find(completion.seq);
      const bool known = found != places.end();
      Add(ring, true, &completion,
          known ? Units(found->second.first, found->second.second) : std::span<const uint8_t>());
      if (known) places.erase(found);
    }
    return count;
  }

 private:
  void Add(Ring ring, bool is_completion, const void* slot, std::span<const uint8_t> bytes) {
    const EventHeader header = {kEventMagic, static_cast<uint8_t>(ring),
                                static_cast<uint8_t>(is_completion ? 1 : 0), 0, bytes.size()};
    out_->write(reinterpret_cast<const char*>(&header), sizeof header);
    out_->write(static_cast<const char*>(slot), 64);
    out_->write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

  std::ostream* const out_;
  std::map<uint32_t, std::pair<uint32_t, uint32_t>> places_[kRings];  // results, by seq
};

}  // namespace

std::unique_ptr<MemoryAttachment> MakeCheckedAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                        Violation violation) {
  return std::make_unique<CheckedAttachment>(std::move(inner), std::move(violation));
}

std::unique_ptr<MemoryAttachment> MakeFaultyAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                       const FaultPlan& plan) {
  return std::make_unique<FaultyAttachment>(std::move(inner), plan);
}

std::unique_ptr<MemoryAttachment> MakeRecordedAttachment(std::unique_ptr<MemoryAttachment> inner,
                                                         std::ostream* out) {
  return std::make_unique<RecordedAttachment>(std::move(inner), out);
}

absl::StatusOr<std::vector<RecordedEvent>> ReadRecording(std::istream& in) {
  std::vector<RecordedEvent> events;
  EventHeader header;
  while (in.read(reinterpret_cast<char*>(&header), sizeof header)) {
    if (header.magic != kEventMagic || header.bytes > kMaxEventBytes) {
      return DataLoss("event {} of a recording: magic {:#x}, {} bytes", events.size(), header.magic,
                      header.bytes);
    }
    RecordedEvent event;
    event.ring = static_cast<Ring>(header.ring);
    event.is_completion = header.is_completion != 0;
    in.read(reinterpret_cast<char*>(event.slot), sizeof event.slot);
    // Reads in pieces, so that a false length allocates no memory.
    for (uint64_t left = header.bytes; left > 0 && in.good();) {
      const size_t piece = static_cast<size_t>(std::min<uint64_t>(left, 1 << 20));
      event.bytes.resize(event.bytes.size() + piece);
      in.read(reinterpret_cast<char*>(event.bytes.data() + event.bytes.size() - piece),
              static_cast<std::streamsize>(piece));
      left -= piece;
    }
    if (!in.good()) return DataLoss("event {} of a recording is cut off", events.size());
    events.push_back(std::move(event));
  }
  if (in.gcount() != 0) return DataLoss("a recording ends within event {}", events.size());
  return events;
}

}  // namespace mnemo::transport
