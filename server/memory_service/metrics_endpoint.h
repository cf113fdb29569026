// /metrics of a memory service.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service {

class MetricsEndpoint {
 public:
  // Serves on "host:port" (port 0: any) until destroyed. `plane` outlives it. UNAVAILABLE: the address is
  // taken.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Create(const std::string& address,
                                                                 const DataPlane* plane);
  ~MetricsEndpoint();
  // Replaces the destructor at the end of the process. The endpoint shows nothing of the plane any more; its
  // listener, which would take up to 2 s to stop, ends with the process.
  static void LeaveToProcess(std::unique_ptr<MetricsEndpoint> endpoint);

  int port() const;
  // The exposition text, as a scrape would see it.
  static std::string Expose(const DataPlane& plane);

 private:
  struct Impl;
  explicit MetricsEndpoint(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::memory_service
