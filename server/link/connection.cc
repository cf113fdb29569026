#include "server/link/connection.h"

#include <google/protobuf/message_lite.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "devices/base/patient_threads.h"

namespace mnemo::link {

Connection::Connection(UniqueFd socket, std::function<void()> written)
    : socket_(std::move(socket)), written_(std::move(written)) {}

Connection::~Connection() {
  Break();
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (writer_.joinable()) writer_.join();
}

absl::Status Connection::Read(google::protobuf::MessageLite* message) {
  while (true) {
    MNEMO_ASSIGN_OR_RETURN(const std::optional<std::string_view> frame, reader_.Next());
    if (frame) {
      if (message->ParseFromArray(frame->data(), static_cast<int>(frame->size()))) return absl::OkStatus();
      return InvalidArgument("a frame of {} bytes is no {}", frame->size(), message->GetTypeName());
    }
    const std::span<char> space = reader_.Space();
    const ssize_t got = ::recv(socket_.get(), space.data(), space.size(), 0);
    if (got > 0) {
      reader_.Add(static_cast<size_t>(got));
    } else if (got == 0) {
      return Unavailable("the peer has closed the connection");
    } else if (errno == EAGAIN) {
      return absl::DeadlineExceededError("the peer says nothing");
    } else if (errno != EINTR) {
      return absl::UnavailableError(std::strerror(errno));
    }
  }
}

void Connection::SetReadTimeout(int milliseconds) {
  const timeval timeout = {milliseconds / 1000, (milliseconds % 1000) * 1000};
  MNEMO_CHECK(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
}

bool Connection::SendWhatFits(std::string_view* frames) {
  while (!frames->empty()) {
    const ssize_t sent = ::send(socket_.get(), frames->data(), frames->size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      frames->remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      Break();
      return true;
    }
  }
  return true;
}

bool Connection::Write(std::string_view frames) {
  if (SendWhatFits(&frames)) return true;
  {
    std::lock_guard lock(mutex_);
    MNEMO_CHECK(rest_.empty());
    rest_ = frames;
    if (!StartWriter()) {
      // The connection is lost; the reader detects it.
      rest_ = {};
      Break();
      return true;
    }
  }
  changed_.notify_all();
  return false;
}

bool Connection::StartWriter() {
  if (writer_.joinable()) return true;
  try {
    const ImpatientHere here;
    writer_ = std::thread([this] { WriterLoop(); });
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

void Connection::WriterLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopped_ || !rest_.empty(); });
    if (rest_.empty()) return;
    std::string_view rest = std::exchange(rest_, {});
    lock.unlock();
    while (!rest.empty()) {
      const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) {
        Break();
        break;
      }
      rest.remove_prefix(static_cast<size_t>(sent));
    }
    written_();
    lock.lock();
  }
}

void Connection::Break() { ::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace mnemo::link
