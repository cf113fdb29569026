// Pages of the KV cache by number: references and free pages. Holds no keys and values.
#pragma once

#include <cstdint>
#include <vector>

namespace mnemo::worker {

// Not thread-safe; allocates only when made.
class PagePool {
 public:
  explicit PagePool(int page_count);

  int page_count() const { return static_cast<int>(references_.size()); }
  int free_count() const { return static_cast<int>(free_.size()); }
  int references(int page) const { return references_[page]; }

  // Returns a free page with one reference; -1: none is free.
  int Allocate();
  void AddReference(int page) { ++references_[page]; }
  // True: it was the last reference, and the page is not free before Free.
  bool Release(int page);
  // Gives back a page without references.
  void Free(int page);

 private:
  std::vector<int32_t> references_;  // [page]
  std::vector<int32_t> free_;        // a stack, since the page used last is still in the CPU's caches
};

}  // namespace mnemo::worker
