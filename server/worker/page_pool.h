// The pages of the KV cache as numbers: who uses them, which are free. Holds no keys and values.
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

  // A free page, with one reference; -1 when there is none.
  int Allocate();
  void AddReference(int page) { ++references_[page]; }
  // True when it was the last reference: the page is in nobody's hands then, until Free.
  bool Release(int page);
  // Gives back a page without references.
  void Free(int page);

 private:
  std::vector<int32_t> references_;  // [page]
  std::vector<int32_t> free_;        // a stack: the page used last is in the caches still
};

}  // namespace mnemo::worker
