// Memory shared by two processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::transport {

// A mapped range with an owner and a key. Move-only. The destructor unmaps it; the other process's mapping of
// the same memory stays valid.
class Region {
 public:
  Region() = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();

  // Creates zeroed memory of at least `length_bytes` (rounded up to whole pages), as a memfd sealed against
  // shrinking and growing. No holder of it can thus make another's access fail. Uses huge pages when the
  // system has them reserved. RESOURCE_EXHAUSTED when there is not enough memory.
  static absl::StatusOr<Region> Create(const std::string& owner, size_t length_bytes);
  // Maps the same memory from its descriptor, which is not trusted. INVALID_ARGUMENT: it is shorter than
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
  // Random; names the region in messages and logs.
  uint64_t key_ = 0;
  bool huge_pages_ = false;
  std::string owner_;
  UniqueFd fd_;
};

}  // namespace mnemo::transport
