// A memory service in the test's own process.
#pragma once

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>

#include "devices/transport/attachment_decorators.h"
#include "devices/transport/listener.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service {

// It can go and come back under the same address.
class Service {
 public:
  explicit Service(DataPlane::Options options = {}) : options_(std::move(options)) {
    static std::atomic<int> count = 0;
    socket_ = "/tmp/mnemo-service-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
    options_.region_bytes = 32 << 20;
    Start();
  }
  void Start() {
    absl::StatusOr<std::unique_ptr<DataPlane>> plane = DataPlane::Create(options_);
    REQUIRE(plane.ok());
    plane_ = *std::move(plane);
    auto listener = transport::Listener::Create(socket_, plane_->device_name(), plane_.get());
    REQUIRE(listener.ok());
    listener_ = *std::move(listener);
  }
  // As if it were killed: every attachment ends at once.
  void Stop() {
    listener_.reset();
    plane_.reset();
  }
  std::string address() const { return "unix:" + socket_; }
  DataPlane& plane() { return *plane_; }

 private:
  DataPlane::Options options_;
  std::string socket_;
  std::unique_ptr<DataPlane> plane_;
  std::unique_ptr<transport::Listener> listener_;
};

// Faults of link `number` of a seeded schedule: one kind of fault, after fewer than `most_calls` calls.
inline transport::FaultPlan FaultOf(int schedule, uint64_t number, uint64_t most_calls) {
  transport::FaultPlan plan;
  plan.seed = static_cast<uint64_t>(schedule) * 1000 + number;
  plan.calls_before = static_cast<uint32_t>(plan.seed * 2654435761U % most_calls);
  uint32_t* const kinds[] = {&plan.drop_chance, &plan.stall_chance, &plan.garbage_chance, &plan.full_chance,
                             &plan.fail_chance};
  *kinds[schedule % 5] = 50;
  return plan;
}

}  // namespace mnemo::memory_service
