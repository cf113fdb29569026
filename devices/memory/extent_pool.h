#pragma once

// Host memory of extents: equal pieces cut from slabs of some megabytes, which the system can back with large
// pages. Scanning is bound by memory, and pages of 4 KiB cost up to half of its speed. Not thread-safe.

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace mnemo::memory_device {

class ExtentPool {
 public:
  ExtentPool();
  // Every extent was given back.
  ~ExtentPool();
  ExtentPool(const ExtentPool&) = delete;
  ExtentPool& operator=(const ExtentPool&) = delete;

  // 64-byte aligned, contents undefined; nullptr when the system has no memory left.
  uint8_t* Allocate(uint64_t bytes);
  void Release(uint8_t* extent);
  // For tests that take away the access to extents.
  void ForEachSlab(const std::function<void(uint8_t* memory, uint64_t bytes)>& visit) const;

 private:
  struct Slab;
  struct Header;
  static Header* HeaderOf(const uint8_t* extent);
  std::unique_ptr<Slab> NewSlab(uint64_t piece_bytes);

  // Slabs by the size of their pieces, header included. One empty slab of a size is kept.
  std::map<uint64_t, std::vector<std::unique_ptr<Slab>>> slabs_;
};

}  // namespace mnemo::memory_device
