// The socket between the two ends of an attachment after the handshake: wake-ups and detection of the peer's
// end.
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::transport {

// Sends one byte to the peer. A full buffer is no error: the peer wakes anyway. UNAVAILABLE: the peer is
// gone.
absl::Status SendWake(int socket);
// Reads the bytes that have arrived. Returns false when the peer is gone.
bool DrainWakes(int socket);
// Returns whether the peer has closed its end, without reading.
bool PeerClosed(int socket);

// Each call passes a non-blocking flag instead of setting the descriptor's mode, which a peer could change.
class PeerSocket {
 public:
  PeerSocket() : socket_() {}
  explicit PeerSocket(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  // As SendWake.
  absl::Status Wake();
  // Consumes old wake-ups before sleep. Returns false when the peer is gone.
  bool Drain();
  // Returns whether the peer is gone. Queries the system at most once every 2 ms unless `now`. Any thread.
  bool lost(bool now) const;
  void MarkLost() { lost_.store(true, std::memory_order_relaxed); }

 private:
  const UniqueFd socket_;
  mutable std::atomic<bool> lost_ = false;
  mutable std::atomic<int64_t> checked_at_ns_ = 0;
};

}  // namespace mnemo::transport
