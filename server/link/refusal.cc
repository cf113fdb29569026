#include "server/link/refusal.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace mnemo::link {
namespace {

// Section 3.4: the client's first bytes.
constexpr size_t kPrefaceBytes = 24;
// Section 4.1: length (3), type, flags, stream (4).
constexpr size_t kFrameHead = 9;
enum FrameType : unsigned char { kHeaders = 1, kSettings = 4, kGoAway = 7 };
constexpr unsigned char kAck = 1, kEndStream = 1, kEndHeaders = 4;
constexpr char kEnhanceYourCalm = 0xb;
constexpr size_t kMaxText = 120;  // one byte of HPACK length (RFC 7541, 5.2)

std::string Frame(unsigned char type, unsigned char flags, std::string_view stream,
                  std::string_view payload) {
  std::string frame = {static_cast<char>(payload.size() >> 16), static_cast<char>(payload.size() >> 8),
                       static_cast<char>(payload.size()), static_cast<char>(type), static_cast<char>(flags)};
  frame += stream;
  frame += payload;
  return frame;
}

const std::string kNoStream(4, '\0');

// Literal without indexing, new name (RFC 7541, 6.2.2).
void AddField(std::string_view name, std::string_view value, std::string* block) {
  *block += '\0';
  *block += static_cast<char>(name.size());
  *block += name;
  *block += static_cast<char>(value.size());
  *block += value;
}

}  // namespace

Refusal::Refusal(UniqueFd socket, std::string_view message)
    : socket_(std::move(socket)), message_(message.substr(0, kMaxText)), skip_bytes_(kPrefaceBytes) {
  Send(Frame(kSettings, 0, kNoStream, ""));
}

void Refusal::Send(std::string_view bytes) const {
  // The answer fits into the buffer of a new socket.
  [[maybe_unused]] const ssize_t sent =
      ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Refusal::Answer(const std::string& stream) {
  std::string block = "\x88";  // :status 200 of the static table
  AddField("content-type", "application/grpc", &block);
  AddField("grpc-status", "8", &block);
  AddField("grpc-message", message_, &block);
  Send(Frame(kHeaders, kEndHeaders | kEndStream, stream, block));
  if (std::exchange(has_answered_, true)) return;
  Send(Frame(kGoAway, 0, kNoStream, stream + std::string{'\0', '\0', '\0', kEnhanceYourCalm} + message_));
  ::shutdown(socket_.get(), SHUT_WR);
}

bool Refusal::Parse() {
  while (true) {
    const size_t skipped = std::min(skip_bytes_, input_.size());
    input_.erase(0, skipped);
    skip_bytes_ -= skipped;
    if (input_.size() < kFrameHead) return true;
    const auto byte = [this](size_t at) { return static_cast<unsigned char>(input_[at]); };
    skip_bytes_ = kFrameHead + (size_t{byte(0)} << 16 | size_t{byte(1)} << 8 | size_t{byte(2)});
    if (byte(3) == kSettings && (byte(4) & kAck) == 0) Send(Frame(kSettings, kAck, kNoStream, ""));
    if (byte(3) == kHeaders) Answer(input_.substr(5, 4));
    if (byte(3) == kGoAway) return false;
  }
}

bool Refusal::Step() {
  char buffer[4096];
  while (true) {
    const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    input_.append(buffer, static_cast<size_t>(got));
    if (!Parse()) return false;
  }
}

}  // namespace mnemo::link
