#include "server/dispatch/runtime_dir.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace mnemo::dispatch {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxSocketPath = 107;  // sun_path of a Unix socket, without the end
constexpr size_t kLongestName = sizeof("/memory63-control.sock") - 1;

bool FitsSockets(const std::string& path) { return path.size() + kLongestName <= kMaxSocketPath; }

// Where a private directory goes: it must be there, short, and such that we could make it again.
std::string PrivateBase() {
  const char* base = std::getenv("XDG_RUNTIME_DIR");
  if (base == nullptr || base[0] != '/' || ::access(base, W_OK | X_OK) != 0) return "/tmp";
  if (!FitsSockets(std::string(base) + "/mnemo-XXXXXX")) return "/tmp";
  const std::string parent = fs::path(base).lexically_normal().parent_path().string();
  return ::access(parent.c_str(), W_OK | X_OK) == 0 ? base : "/tmp";
}

bool SameFile(int fd, const std::string& path) {
  struct stat held = {}, named = {};
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const RuntimeDir>> RuntimeDir::Make(const std::string& configured) {
  std::shared_ptr<RuntimeDir> dir(new RuntimeDir);
  const auto lock = UndoAtEnd::Making();
  dir->undo_ = UndoAtEnd([made = dir.get()] { made->Remove(); });
  if (configured.empty()) {
    MNEMO_RETURN_IF_ERROR(dir->MakePrivate());
    return dir;
  }
  std::error_code error;
  // Not relative: the working directory may be gone when it is to be made again.
  const fs::path absolute = fs::absolute(configured, error);
  dir->path_ = dir->configured_ = (error ? fs::path(configured) : absolute.lexically_normal()).string();
  MNEMO_RETURN_IF_ERROR(dir->Ensure());
  if (!FitsSockets(dir->path_)) {
    MNEMO_RETURN_IF_ERROR(dir->MakePrivate());
    spdlog::warn("workers.runtime_dir: {} is too long for the {} bytes of a socket's path; sockets are in {}",
                 dir->configured_, kMaxSocketPath, dir->path_);
  }
  return dir;
}

absl::Status RuntimeDir::MakePrivate() {
  std::string pattern = PrivateBase() + "/mnemo-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) {
    return FailedPrecondition("workers.runtime_dir: making {}: {}", pattern, std::strerror(errno));
  }
  path_ = pattern;
  owned_ = true;
  return absl::OkStatus();
}

RuntimeDir::~RuntimeDir() { Remove(); }

void RuntimeDir::Remove() const {
  std::error_code ignored;
  if (owned_) fs::remove_all(path_, ignored);
  // Held while it is removed: nobody can lock a file that then has no name without noticing.
  if (lock_.valid()) fs::remove(fs::path(configured_) / "mnemod.lock", ignored);
}

absl::Status RuntimeDir::Ensure() const {
  // Once the end of the process has removed the directory it is not made again: this waits for ever.
  const auto lock = UndoAtEnd::Making();
  std::error_code error;
  if (!configured_.empty()) {
    fs::create_directories(configured_, error);
    if (error) return FailedPrecondition("workers.runtime_dir: {}: {}", configured_, error.message());
    MNEMO_RETURN_IF_ERROR(Lock());
  }
  if (!owned_) return absl::OkStatus();
  fs::create_directories(fs::path(path_).parent_path(), error);
  if (::mkdir(path_.c_str(), S_IRWXU) == 0) {
    spdlog::warn("the directory of sockets, {}, was removed and is made again", path_);
    return absl::OkStatus();
  }
  const int made = errno;
  struct stat info = {};
  if (made == EEXIST && ::lstat(path_.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
      info.st_uid == ::geteuid()) {
    return absl::OkStatus();
  }
  return FailedPrecondition("the directory of sockets, {}, cannot be made again: {}", path_,
                            std::strerror(made));
}

absl::Status RuntimeDir::Lock() const {
  const std::string path = configured_ + "/mnemod.lock";
  if (lock_.valid() && SameFile(lock_.get(), path)) return absl::OkStatus();
  while (true) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
    if (!fd.valid()) return FailedPrecondition("workers.runtime_dir: {}: {}", path, std::strerror(errno));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      char pid[32] = {};
      const ssize_t read = ::pread(fd.get(), pid, sizeof pid - 1, 0);
      const std::string_view text(pid, read > 0 ? static_cast<size_t>(read) : 0);
      return FailedPrecondition("workers.runtime_dir: {} is in use by another mnemod, process {}",
                                configured_, text.substr(0, text.find('\n')));
    }
    if (!SameFile(fd.get(), path)) continue;  // its owner has just removed it
    const std::string pid = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      return FailedPrecondition("workers.runtime_dir: writing {}: {}", path, std::strerror(errno));
    }
    lock_ = std::move(fd);
    return absl::OkStatus();
  }
}

std::string RuntimeDir::SocketPath(std::string_view name) const {
  return fmt::format("{}/{}.sock", path_, name);
}

}  // namespace mnemo::dispatch
