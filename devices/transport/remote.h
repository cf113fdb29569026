// Attachments between machines, through UCX. In a build without UCX, every function returns UNIMPLEMENTED.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "devices/transport/listener.h"
#include "devices/transport/memory_attachment.h"

namespace mnemo::transport {

// As Attach (memory_attachment.h), to "host:port". Results are written at the worker
// (layout::kResultsAtWorker).
absl::StatusOr<std::unique_ptr<MemoryAttachment>> AttachRemote(const AttachOptions& options,
                                                               const std::string& host_port);

// As Listener, over TCP. Address exchanges run one after the other, at most two seconds each, and do not
// delay existing attachments. For trusted networks only. A peer can do to the data plane what it can do over
// shared memory, but UCX itself does not check the data it receives in the handshake.
class RemoteListener {
 public:
  virtual ~RemoteListener() = default;
  virtual int port() const = 0;
  // `host` must outlive the listener. UNAVAILABLE: the address cannot be used.
  static absl::StatusOr<std::unique_ptr<RemoteListener>> Create(const std::string& host_port,
                                                                const std::string& device_name,
                                                                ListenerHost* host);
};

}  // namespace mnemo::transport
