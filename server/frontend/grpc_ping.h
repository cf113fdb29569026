// A call through the running gRPC server, for the watchdog: its answer shows that the server's threads turn.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>

namespace mnemo::frontend {

// Used by one thread. The calls go over a connection of their own, which no limit on clients' connections
// counts.
class GrpcPing {
 public:
  // `input` is that of a started server, which is shut down after the object is gone.
  explicit GrpcPing(grpc::experimental::ExternalConnectionAcceptor* input);
  // Cancels a call that is under way, and waits for its end.
  ~GrpcPing();

  // Answers so far. Sends the next call, unless one is under way. Does not block.
  uint64_t Ask();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace mnemo::frontend
