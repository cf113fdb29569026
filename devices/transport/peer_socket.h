// The socket between the two ends of an attachment, after the handshake: wake-ups and the peer's end.
#pragma once

#include "devices/base/status.h"

namespace mnemo::transport {

// One byte to the peer; if its buffer is full of them it will wake anyhow. UNAVAILABLE: the peer is gone.
absl::Status SendWake(int socket);
// Takes the bytes that are there. False: the peer is gone.
bool DrainWakes(int socket);
// Whether the peer has closed its end, without reading.
bool PeerClosed(int socket);

}  // namespace mnemo::transport
