// grpc.health.v1.Health: the state of the whole server, under the empty name and the name of each service.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

namespace mnemo::frontend {

// Thread-safe. Begins as NOT_SERVING. gRPC's own health service begins as SERVING and cannot be asked about
// by reflection.
class HealthService {
 public:
  HealthService();
  // The server is shut down before.
  ~HealthService();

  grpc::Service* service();
  void SetServing(bool is_serving);
  // Says NOT_SERVING and ends every Watch, which would hold up the shutdown of the server.
  void Shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mnemo::frontend
