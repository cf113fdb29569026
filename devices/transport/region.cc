#include "devices/transport/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "devices/base/mapping.h"

namespace mnemo::transport {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Returns a memfd of huge pages, all reserved by mapping it; invalid when the system has too few.
UniqueFd CreateHuge(size_t length_bytes) {
  UniqueFd fd(::memfd_create("mnemo-region", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(length_bytes)) != 0) return UniqueFd();
  void* probe = ::mmap(nullptr, length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (probe == MAP_FAILED) return UniqueFd();
  ::munmap(probe, length_bytes);
  return fd;
}

}  // namespace

Region::Region(Region&& other) noexcept { *this = std::move(other); }

Region& Region::operator=(Region&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, length_);
    data_ = std::exchange(other.data_, nullptr);
    length_ = std::exchange(other.length_, 0);
    key_ = other.key_;
    huge_pages_ = other.huge_pages_;
    owner_ = std::move(other.owner_);
    fd_ = std::move(other.fd_);
  }
  return *this;
}

Region::~Region() {
  if (data_ != nullptr) ::munmap(data_, length_);
}

absl::StatusOr<Region> Region::Create(const std::string& owner, size_t length_bytes) {
  if (length_bytes == 0 || length_bytes > SIZE_MAX / 2) {
    return InvalidArgument("region of {}: {} bytes, allowed are 1 to {}", owner, length_bytes, SIZE_MAX / 2);
  }
  uint64_t key = 0;
  if (::getrandom(&key, sizeof key, 0) != sizeof key) return Internal("getrandom: {}", std::strerror(errno));
  // Small regions would waste most of a huge page.
  if (length_bytes >= kHugePageBytes) {
    const size_t huge_bytes = RoundUp(length_bytes, kHugePageBytes);
    if (UniqueFd fd = CreateHuge(huge_bytes);
        fd.valid() && ::fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) == 0) {
      absl::StatusOr<Region> region = Map(std::move(fd), owner, huge_bytes, key);
      if (region.ok()) region->huge_pages_ = true;
      return region;
    }
  }
  const size_t bytes = RoundUp(length_bytes, static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  MNEMO_ASSIGN_OR_RETURN(UniqueFd fd, CreateMemfd("mnemo-region", bytes));
  if (::fcntl(fd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return Internal("sealing a region: {}", std::strerror(errno));
  }
  return Map(std::move(fd), owner, bytes, key);
}

absl::StatusOr<Region> Region::Map(UniqueFd fd, const std::string& owner, size_t length_bytes, uint64_t key) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return InvalidArgument("region of {}: its memory is not sealed against shrinking", owner);
  }
  MNEMO_ASSIGN_OR_RETURN(const size_t there, FileLength(fd.get()));
  if (there < length_bytes || length_bytes == 0) {
    return InvalidArgument("region of {}: {} bytes are told, {} are there", owner, length_bytes, there);
  }
  void* data = ::mmap(nullptr, length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) {
    return ResourceExhausted("region of {}: mapping {} bytes: {}", owner, length_bytes, std::strerror(errno));
  }
  // A hint: transparent huge pages, where the system provides them.
  ::madvise(data, length_bytes, MADV_HUGEPAGE);
  KeepOutOfCores(data, length_bytes);
  Region region;
  region.data_ = static_cast<std::byte*>(data);
  region.length_ = length_bytes;
  region.key_ = key;
  region.owner_ = owner;
  region.fd_ = std::move(fd);
  return region;
}

}  // namespace mnemo::transport
