// Memory shared between processes and files mapped for reading.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo {

// A mapped range of a file or memfd. Move-only; unmapped when destroyed. Thread-safe to read.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // Maps all of a regular file for reading. NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (empty, not a
  // file) name the path.
  static absl::StatusOr<Mapping> OpenFile(const std::string& path);
  // Maps the first `length_bytes` of `fd`, which stays the caller's. `writable` maps shared for writing.
  static absl::StatusOr<Mapping> FromFd(int fd, size_t length_bytes, bool writable);

  // Zero bytes of this process alone, which take memory once they are written.
  static absl::StatusOr<Mapping> Anonymous(size_t length_bytes);
  // Gives back what lies behind the first `length_bytes`, at most what there is; those stay where they are.
  void Shrink(size_t length_bytes);

  // The same for reading, at an address and with advice such that the system can back a memfd with large
  // pages: reading it through is then up to twice as fast. Works without them as well.
  static absl::StatusOr<Mapping> FromFdInLargePages(int fd, size_t length_bytes);

  std::span<const std::byte> bytes() const { return {data_, length_}; }
  // Only for a mapping made writable, or anonymous.
  std::span<std::byte> mutable_bytes() const { return {data_, length_}; }

 private:
  Mapping(std::byte* data, size_t length) : data_(data), length_(length) {}
  std::byte* data_ = nullptr;
  size_t length_ = 0;
};

// An anonymous file of `length_bytes` zero bytes, not inherited over exec unless the caller clears
// FD_CLOEXEC. RESOURCE_EXHAUSTED when the memory is not there.
absl::StatusOr<UniqueFd> CreateMemfd(const std::string& name, size_t length_bytes);
// Forbids growing, shrinking and, from now on, writing. Fails while a writable shared mapping exists.
absl::Status SealMemfd(int fd);
// Length of the file behind `fd`.
absl::StatusOr<size_t> FileLength(int fd);

}  // namespace mnemo
