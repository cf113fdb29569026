// A connection that is one too many, answered instead of served.
#pragma once

#include <string>
#include <string_view>

#include "devices/base/unique_fd.h"

namespace mnemo::link {

// Speaks as much HTTP/2 (RFC 9113) as it takes to answer each call of the connection's first moments with a
// status of gRPC, RESOURCE_EXHAUSTED, and then ends the connection. A mere GOAWAY, or no answer, has clients
// connect again without pause or report an error that names no reason.
class Refusal {
 public:
  // `message` is plain ASCII of at most 120 bytes. The socket must not block.
  Refusal(UniqueFd socket, std::string_view message);

  int fd() const { return socket_.get(); }
  // Reads what there is and answers it. False: the connection is over, and this object is to be destroyed.
  bool Step();

 private:
  bool Parse();
  void Answer(const std::string& stream);
  void Send(std::string_view bytes) const;

  UniqueFd socket_;
  const std::string message_;
  std::string input_;
  size_t skip_bytes_;  // of the input, before the next frame's head
  bool has_answered_ = false;
};

}  // namespace mnemo::link
