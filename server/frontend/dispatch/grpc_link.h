// Links over gRPC: one bidirectional stream a worker, by the callback API.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/frontend/dispatch/link.h"

namespace mnemo::frontend {

// Makes links and knows when gRPC is done with all of them. Thread-safe.
class GrpcConnector {
 public:
  struct Options {
    int keepalive_time_ms = 10000;  // TCP links
    int keepalive_timeout_ms = 5000;
  };
  explicit GrpcConnector(Options options);
  ~GrpcConnector();  // as WaitForAll

  // Starts a session with the worker at `address`, "unix:/path" or "host:port". `listener` lives until the
  // link's OnLinkClosed has returned, see WaitForAll.
  std::shared_ptr<WorkerLink> Connect(const std::string& address, LinkListener* listener, int worker,
                                      uint64_t life);
  // Returns when no link is left that may call its listener. All have been told to close.
  void WaitForAll();

 private:
  class Link;
  struct Alive;
  const Options options_;
  const std::shared_ptr<Alive> alive_;
};

}  // namespace mnemo::frontend
