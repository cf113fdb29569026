#include "devices/energy/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace mnemo::energy {
namespace {

absl::Status Failure(const std::string& path, int error) {
  const std::string message = fmt::format("{}: {}", path, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Failure(path, errno);
  std::array<char, 4096> bytes;
  size_t length = 0;
  while (length < bytes.size()) {
    const ssize_t count = ::read(fd.get(), bytes.data() + length, bytes.size() - length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failure(path, errno);
    if (count == 0) break;
    length += static_cast<size_t>(count);
  }
  while (length > 0 && std::strchr(" \n\t", bytes[length - 1]) != nullptr) --length;
  return std::string(bytes.data(), length);
}

absl::StatusOr<uint64_t> ReadNumber(const std::string& path) { return NumberFile(path).Read(); }

absl::StatusOr<uint64_t> NumberFile::Read() {
  if (fd_.valid()) {
    const absl::StatusOr<uint64_t> number = ReadOpen();
    if (number.ok() && number != last_) return last_ = number;
  }
  fd_ = UniqueFd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  return last_ = fd_.valid() ? ReadOpen() : Failure(path_, errno);
}

absl::StatusOr<uint64_t> NumberFile::ReadOpen() const {
  // More than the 20 digits of 2^64 and a line's end are no number.
  std::array<char, 22> text;
  const ssize_t count = ::pread(fd_.get(), text.data(), text.size(), 0);
  if (count < 0) return Failure(path_, errno);
  size_t length = static_cast<size_t>(count);
  if (length > 0 && text[length - 1] == '\n') --length;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + length, number);
  if (error != std::errc() || end != text.data() + length) {
    return DataLoss("{}: no decimal number below 2^64", path_);
  }
  return number;
}

}  // namespace mnemo::energy
