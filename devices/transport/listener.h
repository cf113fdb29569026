// Where workers attach: a Unix socket, the handshake, and the region that comes of it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/handshake.h"
#include "devices/transport/request_reader.h"
#include "devices/transport/service_link.h"

namespace mnemo::transport {

// Called from the listener's thread.
class ListenerHost {
 public:
  virtual ~ListenerHost() = default;
  // The hello has been compared already. What is granted (GrantWithin), with a new epoch, or why nothing is:
  // the message goes to the worker.
  virtual absl::StatusOr<layout::AttachHello> Grant(const std::string& owner,
                                                    const layout::AttachHello& wanted) = 0;
  // After each Grant that was OK, exactly once; null: nothing came of it.
  virtual void Attached(uint16_t epoch, std::unique_ptr<ServiceLink> link) = 0;
};

class Listener {
 public:
  // Listens on a socket with mode 0600, in place of one that is there but answers to nobody. `host` outlives
  // the listener. UNAVAILABLE: somebody else listens there, or the path cannot be had.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(const std::string& path,
                                                          const std::string& device_name, ListenerHost* host);
  // Stops and removes the socket.
  ~Listener();

 private:
  Listener(std::string path, std::string device_name, ListenerHost* host,
           std::unique_ptr<RequestReader> requests);
  void Answer(UniqueFd socket, const AttachRequest& request);
  // Grants, makes the region, answers and hands over. An error is what the worker is to be told.
  absl::Status Admit(UniqueFd& socket, const AttachRequest& request, AttachReply& reply);

  const std::string path_;
  const std::string device_name_;
  ListenerHost* const host_;
  const std::unique_ptr<RequestReader> requests_;
  std::thread thread_;
};

}  // namespace mnemo::transport
