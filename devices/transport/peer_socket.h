// The socket between the two ends of an attachment, after the handshake: wake-ups and the peer's end.
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::transport {

// One byte to the peer; if its buffer is full of them it will wake anyhow. UNAVAILABLE: the peer is gone.
absl::Status SendWake(int socket);
// Takes the bytes that are there. False: the peer is gone.
bool DrainWakes(int socket);
// Whether the peer has closed its end, without reading.
bool PeerClosed(int socket);

// Each call is non-blocking by itself, not by a mode of the descriptor, which a peer could change.
class PeerSocket {
 public:
  PeerSocket() = default;
  explicit PeerSocket(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  absl::Status Wake();
  // Before sleep: takes old wake-ups. False: the peer is gone.
  bool Drain();
  // Asks the system at most once every 2 ms unless `now`. Any thread.
  bool lost(bool now) const;
  void MarkLost() { lost_.store(true, std::memory_order_relaxed); }

 private:
  const UniqueFd socket_;
  mutable std::atomic<bool> lost_ = false;
  mutable std::atomic<int64_t> checked_at_ns_ = 0;
};

}  // namespace mnemo::transport
