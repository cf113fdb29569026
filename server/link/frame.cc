#include "server/link/frame.h"

#include <google/protobuf/message_lite.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mnemo::link {
namespace {

constexpr size_t kInitialBytes = 64 << 10;

uint32_t ReadLength(const char* bytes) {
  uint32_t length = 0;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    length |= uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return length;
}

}  // namespace

absl::Status AppendFrame(const google::protobuf::MessageLite& message, std::string* out) {
  const size_t length = message.ByteSizeLong();
  if (length > kMaxFrameBytes) {
    return ResourceExhausted("a message of {} bytes is over the {} of a frame", length, kMaxFrameBytes);
  }
  const size_t start = out->size();
  out->resize(start + kFrameHeaderBytes + length);
  char* const bytes = out->data() + start;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(bytes + kFrameHeaderBytes));
  return absl::OkStatus();
}

FrameReader::FrameReader() : capacity_(kInitialBytes), buffer_(new char[kInitialBytes]) {}

std::span<char> FrameReader::Space() {
  const size_t held = end_ - begin_;
  if (held == 0) begin_ = end_ = 0;
  // Grows as bytes arrive, and shrinks after a large frame.
  size_t wanted = capacity_;
  if (held == 0) wanted = kInitialBytes;
  if (held == capacity_) wanted = std::min(2 * capacity_, kFrameHeaderBytes + kMaxFrameBytes + kInitialBytes);
  if (wanted != capacity_) {
    std::unique_ptr<char[]> other(new char[wanted]);
    std::memcpy(other.get(), buffer_.get() + begin_, held);
    buffer_ = std::move(other);
    capacity_ = wanted;
    begin_ = 0;
    end_ = held;
  } else if (end_ == capacity_) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, held);
    begin_ = 0;
    end_ = held;
  }
  return {buffer_.get() + end_, capacity_ - end_};
}

void FrameReader::Add(size_t count_bytes) {
  MNEMO_CHECK(count_bytes <= capacity_ - end_);
  end_ += count_bytes;
}

absl::StatusOr<std::optional<std::string_view>> FrameReader::Next() {
  const size_t held = end_ - begin_;
  if (held < kFrameHeaderBytes) return std::nullopt;
  const size_t length = ReadLength(buffer_.get() + begin_);
  if (length > kMaxFrameBytes) {
    return InvalidArgument("a frame of {} bytes is over the {} of this protocol: the peer speaks another one",
                           length, kMaxFrameBytes);
  }
  if (held - kFrameHeaderBytes < length) return std::nullopt;
  const std::string_view message(buffer_.get() + begin_ + kFrameHeaderBytes, length);
  begin_ += kFrameHeaderBytes + length;
  return message;
}

}  // namespace mnemo::link
