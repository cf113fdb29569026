// mnemo.v1.Admin.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "server/frontend/service_context.h"

namespace mnemo::frontend {

// Actions of the whole front end that an operator asks for. Thread-safe.
struct AdminActions {
  std::string version;
  std::chrono::milliseconds default_drain_timeout{30000};
  // Stops admission, waits, and calls `done` on any thread.
  std::function<void(std::chrono::milliseconds timeout, std::function<void(DrainResult)> done)> drain;
  // FAILED_PRECONDITION when the process is about to end.
  std::function<absl::Status()> resume;
};

inline constexpr std::chrono::milliseconds kMaxDrainTimeout{3'600'000};

// `context` outlives the service.
std::unique_ptr<grpc::Service> MakeAdminService(ServiceContext* context, AdminActions actions);

}  // namespace mnemo::frontend
