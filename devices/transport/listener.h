// Where workers attach: a Unix socket, the handshake, and the region that comes of it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/handshake.h"
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
  // A connection whose request has not come yet. The bytes are few, so they are few that say nothing.
  struct Pending {
    UniqueFd socket;
    Deadline until;
    AttachRequest request;
    size_t got = 0;
  };
  static constexpr size_t kMaxPending = 16;
  static constexpr std::chrono::seconds kRequestTime{2};

  Listener(std::string path, std::string device_name, ListenerHost* host);
  void Run();
  void Accept();
  // Reads what is there; true: the connection is no longer pending.
  bool Advance(Pending& pending);
  void Answer(Pending& pending);
  // Grants, makes the region, answers and hands over. An error is what the worker is to be told.
  absl::Status Admit(Pending& pending, AttachReply& reply);

  const std::string path_;
  const std::string device_name_;
  ListenerHost* const host_;
  UniqueFd socket_;
  UniqueFd stop_;
  std::vector<Pending> pending_;
  std::thread thread_;
};

}  // namespace mnemo::transport
