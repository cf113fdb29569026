// Listener for attaching workers: a Unix socket, the handshake, and the resulting region.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/handshake.h"
#include "devices/transport/request_reader.h"
#include "devices/transport/service_attachment.h"

namespace mnemo::transport {

// Callbacks of the listener, called from its thread.
class ListenerHost {
 public:
  virtual ~ListenerHost() = default;
  // Returns the granted limits (GrantWithin) with a new epoch, or an error, whose message goes to the worker.
  // The hello has already passed the comparison with this build's.
  virtual absl::StatusOr<layout::AttachHello> Grant(const std::string& owner,
                                                    const layout::AttachHello& wanted) = 0;
  // Called exactly once after each successful Grant; null: the attachment failed.
  virtual void Attached(uint16_t epoch, std::unique_ptr<ServiceAttachment> attachment) = 0;
};

class Listener {
 public:
  // Listens on a socket with mode 0600, and replaces a socket that has no listener. `host` must outlive the
  // listener. UNAVAILABLE: another process listens there, or the path cannot be used.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(const std::string& path,
                                                          const std::string& device_name, ListenerHost* host);
  // Stops and removes the socket.
  ~Listener();

 private:
  Listener(std::string path, std::string device_name, ListenerHost* host,
           std::unique_ptr<RequestReader> requests);
  void Answer(UniqueFd socket, const AttachRequest& request);
  // Grants, makes the region, answers and hands over. The worker receives the text of an error.
  absl::Status Admit(UniqueFd& socket, const AttachRequest& request, AttachReply& reply);

  const std::string path_;
  const std::string device_name_;
  ListenerHost* const host_;
  const std::unique_ptr<RequestReader> requests_;
  std::thread thread_;
};

}  // namespace mnemo::transport
