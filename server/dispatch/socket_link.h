// Links over sockets: a connection and a thread for each worker.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/dispatch/link.h"
#include "server/link/socket.h"

namespace mnemo::dispatch {

// Makes links and knows when all of them are over. Thread-safe.
class SocketConnector {
 public:
  explicit SocketConnector(link::Keepalive keepalive);
  ~SocketConnector();  // as WaitForAll

  // Starts a session with the worker at `address`, "unix:/path" or "host:port". `listener` lives until the
  // link's OnLinkClosed has returned, see WaitForAll. Returns at once; none when there is no thread for it
  // now.
  std::shared_ptr<WorkerLink> Connect(const std::string& address, LinkListener* listener, int worker,
                                      uint64_t life);
  // Returns when no link is left that may call its listener. All have been told to close.
  void WaitForAll();

 private:
  class Link;
  struct Alive;
  const link::Keepalive keepalive_;
  const std::shared_ptr<Alive> alive_;
};

}  // namespace mnemo::dispatch
