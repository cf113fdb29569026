// Refusal of a connection beyond the limit.
#pragma once

#include <string>
#include <string_view>

#include "devices/base/unique_fd.h"

namespace mnemo::link {

// Implements as much HTTP/2 (RFC 9113) as is needed to answer each early call with the gRPC status
// RESOURCE_EXHAUSTED. Then it ends the connection. A bare GOAWAY, or no answer, would make clients reconnect
// without pause or report an error without a reason.
class Refusal {
 public:
  // `message` is plain ASCII of at most 120 bytes. The socket must be non-blocking.
  Refusal(UniqueFd socket, std::string_view message);

  int fd() const { return socket_.get(); }
  // Reads available bytes and answers. Returns false when the connection is over and this object should be
  // destroyed.
  bool Step();

 private:
  bool Parse();
  void Answer(const std::string& stream);
  void Send(std::string_view bytes) const;

  UniqueFd socket_;
  const std::string message_;
  std::string input_;
  // Input bytes to skip before the next frame header.
  size_t skip_bytes_;
  bool has_answered_ = false;
};

}  // namespace mnemo::link
