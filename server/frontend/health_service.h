// grpc.health.v1.Health. "live": the process answers and its loops turn. "ready", the empty name and the name
// of each other service: it takes requests. Both are answered from memory, on gRPC's threads.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

namespace mnemo::frontend {

// Thread-safe. Begins live and not ready. gRPC's own health service begins as SERVING and cannot be asked
// about by reflection.
class HealthService {
 public:
  HealthService();
  // The server is shut down before.
  ~HealthService();

  grpc::Service* service();
  void SetReady(bool is_ready);
  void SetLive(bool is_live);
  // Says NOT_SERVING for both and ends every Watch, which would hold up the shutdown of the server.
  void Shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::frontend
