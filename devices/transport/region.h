// Memory that two processes work on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::transport {

// A mapped range with an owner and a key. Move-only: unmapped when destroyed, which the other process's
// mapping of the same memory outlives.
class Region {
 public:
  Region() = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();

  // New zeroed memory of at least `length_bytes` (rounded up to whole pages), as a memfd that can be neither
  // shrunk nor grown any more, so that no holder of it can make another's access fail. In huge pages when the
  // system has them reserved. RESOURCE_EXHAUSTED.
  static absl::StatusOr<Region> Create(const std::string& owner, size_t length_bytes);
  // The same memory from its descriptor, which is not trusted: INVALID_ARGUMENT when it is shorter than
  // `length_bytes` or can still be shrunk.
  static absl::StatusOr<Region> Map(UniqueFd fd, const std::string& owner, size_t length_bytes, uint64_t key);

  const std::string& owner() const { return owner_; }
  uint64_t key() const { return key_; }
  size_t length_bytes() const { return length_; }
  std::span<std::byte> bytes() const { return {data_, length_}; }
  int fd() const { return fd_.get(); }
  bool huge_pages() const { return huge_pages_; }

 private:
  std::byte* data_ = nullptr;
  size_t length_ = 0;
  uint64_t key_ = 0;  // random; names the region in messages and logs
  bool huge_pages_ = false;
  std::string owner_;
  UniqueFd fd_;
};

}  // namespace mnemo::transport
