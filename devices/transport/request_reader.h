// Reads attach requests from the connections of a listening socket.
#pragma once

#include <memory>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/handshake.h"

namespace mnemo::transport {

// Reads all connections concurrently. A silent connection delays no other, and is closed after two seconds.
class RequestReader {
 public:
  // INTERNAL: the system refuses a descriptor.
  static absl::StatusOr<std::unique_ptr<RequestReader>> Create(UniqueFd listening);
  // Blocks until the next complete request, and returns it with its connection. Returns false after Stop.
  bool Next(UniqueFd* socket, AttachRequest* request);
  // Ends Next. Any thread.
  void Stop();

 private:
  // A connection whose request is incomplete. A request is small, so this state lasts only for silent peers.
  struct Pending {
    UniqueFd socket;
    Deadline until;
    AttachRequest request;
    size_t got = 0;
  };
  static constexpr size_t kMaxPending = 16;
  static constexpr std::chrono::seconds kRequestTime{2};

  RequestReader(UniqueFd listening, UniqueFd stop);
  void Accept();
  // Reads available bytes; returns false when the peer closed.
  static bool Read(Pending* pending);

  const UniqueFd listening_;
  const UniqueFd stop_;
  std::vector<Pending> pending_;
};

}  // namespace mnemo::transport
