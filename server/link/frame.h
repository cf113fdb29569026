// Frames of messages in a byte stream: the length of the message in bytes, 32 bits little-endian, then the
// message in protobuf encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "devices/base/status.h"

namespace google::protobuf {
class MessageLite;
}

namespace mnemo::link {

// Version of the messages in frames, proto/mnemo/internal/worker.proto.
inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr size_t kFrameHeaderBytes = 4;
// Limit on one message; enough for a prompt of several million tokens.
inline constexpr size_t kMaxFrameBytes = 64 << 20;

// Appends `message` as a frame. RESOURCE_EXHAUSTED, with nothing appended, when it exceeds kMaxFrameBytes.
absl::Status AppendFrame(const google::protobuf::MessageLite& message, std::string* out);

// Splits a byte stream into frames. Not thread-safe. Holds about twice the received bytes of one frame,
// whatever length its header claims.
class FrameReader {
 public:
  FrameReader();
  // Returns space for the next bytes, never empty. Invalidates the results of Next.
  std::span<char> Space();
  // Reports that `count_bytes` were written to Space().
  void Add(size_t count_bytes);
  // Returns the next whole message, or nullopt when more bytes are needed. INVALID_ARGUMENT when a length
  // exceeds kMaxFrameBytes: the peer speaks another protocol, and later bytes have no meaning.
  absl::StatusOr<std::optional<std::string_view>> Next();

 private:
  size_t capacity_;
  std::unique_ptr<char[]> buffer_;
  // Begin of the bytes that have not been returned.
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace mnemo::link
