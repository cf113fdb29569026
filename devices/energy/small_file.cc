#include "devices/energy/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "devices/base/unique_fd.h"

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

absl::StatusOr<uint64_t> ReadNumber(const std::string& path) {
  MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return DataLoss("{}: no decimal number below 2^64", path);
  }
  return number;
}

}  // namespace mnemo::energy
