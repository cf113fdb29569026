// How messages stand in a byte stream: the length of the message in bytes, 32 bits little-endian, then the
// message in protobuf's encoding.
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

// Of what is said in frames, proto/mnemo/internal/worker.proto.
inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr size_t kFrameHeaderBytes = 4;
inline constexpr size_t kMaxFrameBytes = 64 << 20;  // of a message; a prompt of several million tokens

// Appends `message` as a frame. RESOURCE_EXHAUSTED, and nothing appended, when it is larger than a frame may
// be.
absl::Status AppendFrame(const google::protobuf::MessageLite& message, std::string* out);

// Finds the frames in what is read, piece by piece. Not thread-safe. Holds about twice of what has come of
// one frame, whatever length its header claims.
class FrameReader {
 public:
  FrameReader();
  // Room for the next bytes, never none. Invalidates what Next has returned.
  std::span<char> Space();
  // So many bytes have been put into it.
  void Add(size_t count_bytes);
  // The next whole message, or none when more bytes are needed. INVALID_ARGUMENT when a length is over
  // kMaxFrameBytes: the other side speaks another protocol, and nothing after that makes sense.
  absl::StatusOr<std::optional<std::string_view>> Next();

 private:
  size_t capacity_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;  // of what has not been returned
  size_t end_ = 0;
};

}  // namespace mnemo::link
