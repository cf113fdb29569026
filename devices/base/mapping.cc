#include "devices/base/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mnemo {

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), length_(std::exchange(other.length_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, length_);
    data_ = std::exchange(other.data_, nullptr);
    length_ = std::exchange(other.length_, 0);
  }
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, length_);
}

absl::StatusOr<Mapping> Mapping::OpenFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    const int error = errno;
    const std::string message = fmt::format("{}: {}", path, std::strerror(error));
    return absl::Status(absl::ErrnoToStatusCode(error), message);
  }
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return Internal("{}: fstat: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return InvalidArgument("{}: not a regular file", path);
  if (info.st_size == 0) return InvalidArgument("{}: the file is empty", path);
  absl::StatusOr<Mapping> mapping = FromFd(fd.get(), static_cast<size_t>(info.st_size), false);
  if (!mapping.ok()) return Annotate(mapping.status(), path);
  return mapping;
}

absl::StatusOr<Mapping> Mapping::FromFd(int fd, size_t length_bytes, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  // A sealed memfd can be mapped for reading as a private or as a read-only shared mapping; private works for
  // files as well.
  const int flags = writable ? MAP_SHARED : MAP_PRIVATE;
  void* data = ::mmap(nullptr, length_bytes, protection, flags, fd, 0);
  if (data == MAP_FAILED)
    return ResourceExhausted("mmap of {} bytes: {}", length_bytes, std::strerror(errno));
  KeepOutOfCores(data, length_bytes);
  return Mapping(static_cast<std::byte*>(data), length_bytes);
}

absl::StatusOr<Mapping> Mapping::Anonymous(size_t length_bytes) {
  void* data = ::mmap(nullptr, length_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    return ResourceExhausted("mmap of {} bytes: {}", length_bytes, std::strerror(errno));
  KeepOutOfCores(data, length_bytes);
  return Mapping(static_cast<std::byte*>(data), length_bytes);
}

void Mapping::Shrink(size_t length_bytes) {
  MNEMO_CHECK(length_bytes <= length_);
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t kept = (length_bytes + page - 1) / page * page;
  if (kept == 0) {
    *this = Mapping();
  } else if (kept < length_) {
    ::munmap(data_ + kept, length_ - kept);
    length_ = kept;
  }
}

absl::StatusOr<Mapping> Mapping::FromFdInLargePages(int fd, size_t length_bytes) {
  constexpr size_t kLargePage = size_t{2} << 20;
  // MADV_COLLAPSE of Linux 6.1; the headers of Debian 12 lack it.
  constexpr int kAdviceCollapse = 25;
  if (length_bytes < kLargePage || length_bytes > SIZE_MAX - kLargePage) {
    return FromFd(fd, length_bytes, false);
  }
  // A large page needs an address that is a multiple of its size. The reservation is larger than needed; the
  // parts before and after the mapping are returned.
  const size_t reserved = length_bytes + kLargePage;
  void* area = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) {
    return ResourceExhausted("mmap of {} bytes: {}", length_bytes, std::strerror(errno));
  }
  std::byte* const begin = static_cast<std::byte*>(area);
  const size_t skipped = (kLargePage - reinterpret_cast<uintptr_t>(begin) % kLargePage) % kLargePage;
  void* data = ::mmap(begin + skipped, length_bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::munmap(area, reserved);
    return ResourceExhausted("mmap of {} bytes: {}", length_bytes, std::strerror(error));
  }
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t end = skipped + (length_bytes + page - 1) / page * page;
  if (skipped > 0) ::munmap(begin, skipped);
  if (end < reserved) ::munmap(begin + end, reserved - end);
  // These calls are hints. An older system, or one without free large pages, refuses them and uses small
  // pages.
  ::madvise(data, length_bytes, MADV_HUGEPAGE);
  ::madvise(data, length_bytes / kLargePage * kLargePage, kAdviceCollapse);
  KeepOutOfCores(data, length_bytes);
  return Mapping(static_cast<std::byte*>(data), length_bytes);
}

void KeepOutOfCores(void* data, size_t length_bytes) {
  // Fails only where the system has no such advice, and there is nothing else to try.
  (void)::madvise(data, length_bytes, MADV_DONTDUMP);
}

absl::StatusOr<UniqueFd> CreateMemfd(const std::string& name, size_t length_bytes) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ResourceExhausted("memfd_create {}: {}", name, std::strerror(errno));
  if (::ftruncate(fd.get(), static_cast<off_t>(length_bytes)) != 0) {
    return ResourceExhausted("memfd {} of {} bytes: {}{}", name, length_bytes, std::strerror(errno),
                             errno == EFBIG ? " (RLIMIT_FSIZE, ulimit -f)" : "");
  }
  return fd;
}

absl::Status SealMemfd(int fd) {
  if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    return Internal("sealing a memfd: {}", std::strerror(errno));
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> FileLength(int fd) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return Internal("fstat: {}", std::strerror(errno));
  return static_cast<size_t>(info.st_size);
}

}  // namespace mnemo
