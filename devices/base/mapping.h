// Memory shared between processes, and files mapped for reading.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo {

// A mapped range of a file or memfd. Move-only; unmapped when destroyed. Concurrent reads are safe.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // Maps all of a regular file for reading. Errors name the path: NOT_FOUND, PERMISSION_DENIED, or
  // INVALID_ARGUMENT when it is empty or not a regular file.
  static absl::StatusOr<Mapping> OpenFile(const std::string& path);
  // Maps the first `length_bytes` of `fd`; the caller keeps ownership of `fd`. `writable` makes a shared
  // mapping for writing.
  static absl::StatusOr<Mapping> FromFd(int fd, size_t length_bytes, bool writable);

  // Maps zeroed memory private to this process; pages take memory once they are written.
  static absl::StatusOr<Mapping> Anonymous(size_t length_bytes);
  // Unmaps everything behind the first `length_bytes`, which must not exceed the mapped length. The address
  // stays the same.
  void Shrink(size_t length_bytes);

  // Maps a memfd for reading at an address, and with advice, that let the kernel back it with large pages. A
  // sequential read is then up to twice as fast. Works without large pages as well.
  static absl::StatusOr<Mapping> FromFdInLargePages(int fd, size_t length_bytes);

  std::span<const std::byte> bytes() const { return {data_, length_}; }
  // Valid only for a writable or anonymous mapping.
  std::span<std::byte> mutable_bytes() const { return {data_, length_}; }

 private:
  Mapping(std::byte* data, size_t length) : data_(data), length_(length) {}
  std::byte* data_ = nullptr;
  size_t length_ = 0;
};

// Leaves the range out of core files, which would hold weights, or the prompts from which keys and values are
// computed. `data` is the beginning of a mapping. All mappings made by this header have it already.
void KeepOutOfCores(void* data, size_t length_bytes);

// Creates an anonymous file of `length_bytes` zero bytes. It is not inherited over exec unless the caller
// clears FD_CLOEXEC. RESOURCE_EXHAUSTED when there is not enough memory.
absl::StatusOr<UniqueFd> CreateMemfd(const std::string& name, size_t length_bytes);
// Seals the file against growing, shrinking and any further writing. Fails while a writable shared mapping
// exists.
absl::Status SealMemfd(int fd);
// Returns the length in bytes of the file behind `fd`.
absl::StatusOr<size_t> FileLength(int fd);

}  // namespace mnemo
