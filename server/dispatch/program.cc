#include "server/dispatch/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mnemo::dispatch {

absl::StatusOr<Program> Program::Open(std::string_view key, const std::string& path) {
  if (::access(path.c_str(), X_OK) != 0) {
    return FailedPrecondition("{}: {}: {}", key, path, std::strerror(errno));
  }
  Program program(path);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char head[2] = {};
  if (fd.valid()) {
    program.is_script = ::pread(fd.get(), head, 2, 0) == 2 && std::memcmp(head, "#!", 2) == 0;
  } else {
    fd = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));  // may be run but not read
  }
  if (!fd.valid()) return FailedPrecondition("{}: {}: {}", key, path, std::strerror(errno));
  program.file = std::make_shared<const UniqueFd>(std::move(fd));
  return program;
}

}  // namespace mnemo::dispatch
