// The control plane of a memory service over gRPC (proto/mnemo/internal/memory.proto).
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "server/memory_service/data_plane.h"

namespace mnemo::memory_service {

// Serves until destroyed: the control service, health (SERVING but while draining) and reflection.
class ControlServer {
 public:
  // `plane` outlives the server. UNAVAILABLE: the address cannot be had.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Create(const std::string& address,
                                                               const std::string& data_socket,
                                                               DataPlane* plane);
  ~ControlServer();

  // The port, when the address was HOST:PORT.
  int port() const;

 private:
  struct Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::memory_service
