// What comes to a listening socket, up to whole requests to attach.
#pragma once

#include <memory>
#include <vector>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/transport/handshake.h"

namespace mnemo::transport {

// Reads of all connections at once: one that says nothing holds up no other, and is closed after two seconds.
class RequestReader {
 public:
  static absl::StatusOr<std::unique_ptr<RequestReader>> Create(UniqueFd listening);
  // Waits for the next request and gives the connection it came by. False: Stop was called.
  bool Next(UniqueFd* socket, AttachRequest* request);
  // Any thread.
  void Stop();

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

  RequestReader(UniqueFd listening, UniqueFd stop);
  void Accept();
  // Takes what is there; false: the peer closed.
  static bool Read(Pending* pending);

  const UniqueFd listening_;
  const UniqueFd stop_;
  std::vector<Pending> pending_;
};

}  // namespace mnemo::transport
