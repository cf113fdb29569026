// A data plane in the process and a worker's view of it, for tests and tools.
#pragma once

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "devices/transport/listener.h"
#include "devices/transport/memory_attachment.h"
#include "proto/layout/layout_hash.h"
#include "proto/layout/payload.h"
#include "proto/layout/quantise.h"
#include "proto/layout/record.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service {

using layout::Completion;
using layout::Descriptor;
using transport::Ring;

inline std::string TestSocket() {
  static std::atomic<int> count = 0;
  return "/tmp/mnemo-plane-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

inline absl::StatusOr<std::unique_ptr<transport::MemoryAttachment>> AttachTo(const std::string& address,
                                                                             const std::string& owner,
                                                                             uint64_t quota_bytes = 0) {
  transport::AttachOptions options;
  options.address = address;
  options.owner = owner;
  options.wanted = layout::NewHello();
  options.wanted.quota_bytes = quota_bytes;
  return transport::Attach(options);
}

class TestPlane {
 public:
  explicit TestPlane(DataPlane::Options options = {}, uint64_t region_bytes = 8 << 20)
      : socket(TestSocket()) {
    spdlog::set_level(spdlog::level::warn);
    options.region_bytes = region_bytes;
    absl::StatusOr<std::unique_ptr<DataPlane>> made = DataPlane::Create(options);
    MNEMO_CHECK(made.ok());
    plane = std::move(*made);
    absl::StatusOr<std::unique_ptr<transport::Listener>> listening =
        transport::Listener::Create(socket, plane->device_name(), plane.get());
    MNEMO_CHECK(listening.ok());
    listener_ = std::move(*listening);
  }

  std::string address() const { return "unix:" + socket; }

  const std::string socket;
  std::unique_ptr<DataPlane> plane;

 private:
  std::unique_ptr<transport::Listener> listener_;
};

// One worker: sends, waits, keeps what each index holds to compare with.
class TestWorker {
 public:
  TestWorker(const std::string& address, const std::string& owner, uint64_t quota_bytes = 0) {
    absl::StatusOr<std::unique_ptr<transport::MemoryAttachment>> attached =
        AttachTo(address, owner, quota_bytes);
    MNEMO_CHECK(attached.ok());
    link = std::move(*attached);
  }

  // Submits and waits for all.
  std::vector<Completion> Run(Ring ring, std::vector<Descriptor> batch) {
    MNEMO_CHECK(link->Submit(ring, batch).ok());
    std::vector<Completion> done(batch.size());
    for (size_t count = 0; count < done.size();) {
      MNEMO_CHECK(link->Wait(ring, std::chrono::seconds(30)).ok());
      count += link->Poll(ring, std::span(done).subspan(count));
    }
    // Refused ones may come first.
    std::sort(done.begin(), done.end(), [](const Completion& a, const Completion& b) {
      return static_cast<int32_t>(a.seq - b.seq) < 0;
    });
    return done;
  }
  Completion RunOne(Ring ring, const Descriptor& descriptor) { return Run(ring, {descriptor})[0]; }

  Completion Create(uint32_t id, uint16_t generation, const layout::IndexSpec& spec) {
    const transport::Area& area = link->payload_area(Ring::kBulk);
    std::memcpy(area.bytes.data(), &spec, sizeof spec);
    Descriptor d{};
    d.op = layout::kOpCreate;
    d.index_id = id;
    d.index_generation = generation;
    d.format = spec.record_format;
    d.payload_offset = static_cast<uint32_t>(area.offset_bytes / 64);
    d.payload_length = 1;
    return RunOne(Ring::kBulk, d);
  }

  // keys: f32 [slots][heads][tokens][dim] of all slots.
  Descriptor AppendOf(uint32_t id, uint16_t generation, const layout::IndexSpec& spec, uint32_t begin,
                      uint32_t end, std::span<const float> keys) {
    const transport::Area& area = link->payload_area(Ring::kBulk);
    MNEMO_CHECK(keys.size_bytes() <= area.bytes.size());
    std::memcpy(area.bytes.data(), keys.data(), keys.size_bytes());
    Descriptor d{};
    d.op = layout::kOpAppend;
    d.index_id = id;
    d.index_generation = generation;
    d.layer_slot = layout::kAllLayerSlots;
    d.heads = static_cast<uint8_t>(spec.heads);
    d.format = layout::kFormatF32;
    d.begin = begin;
    d.end = end;
    d.payload_offset = static_cast<uint32_t>(area.offset_bytes / 64);
    d.payload_length = static_cast<uint32_t>(keys.size_bytes() / 64);
    return d;
  }

  std::unique_ptr<transport::MemoryAttachment> link;
};

inline layout::IndexSpec SpecOf(uint8_t format, uint16_t slots, uint16_t heads, uint16_t dim,
                                uint32_t max_tokens) {
  layout::IndexSpec spec{};
  spec.max_tokens = max_tokens;
  spec.layer_slots = slots;
  spec.heads = heads;
  spec.dim = dim;
  spec.record_format = format;
  return spec;
}

inline std::vector<float> RandomFloats(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace mnemo::memory_service
