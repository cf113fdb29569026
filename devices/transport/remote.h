// Attachments between machines, through UCX. Where it is not built in, each of these says UNIMPLEMENTED.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "devices/transport/listener.h"
#include "devices/transport/memory_link.h"

namespace mnemo::transport {

// Attach (memory_link.h) to "host:port". Results lie at the worker (layout::kResultsAtWorker).
absl::StatusOr<std::unique_ptr<MemoryLink>> AttachRemote(const LinkOptions& options,
                                                         const std::string& host_port);

// As Listener, on TCP. What follows a request, the exchange of addresses, is done one after the other, each
// in at most two seconds; what attached is not held up by it. For networks of ours alone: a peer can do to
// the data plane what it can do over shared memory, but UCX itself takes what it is told at the handshake on
// trust.
class RemoteListener {
 public:
  virtual ~RemoteListener() = default;
  virtual int port() const = 0;
  // `host` outlives the listener. UNAVAILABLE: the address cannot be had.
  static absl::StatusOr<std::unique_ptr<RemoteListener>> Create(const std::string& host_port,
                                                                const std::string& device_name,
                                                                ListenerHost* host);
};

}  // namespace mnemo::transport
