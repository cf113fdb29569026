#include "server/worker/page_pool.h"

#include "devices/base/status.h"

namespace mnemo::worker {

PagePool::PagePool(int page_count) : references_(page_count, 0) {
  free_.reserve(page_count);
  for (int page = page_count - 1; page >= 0; --page) free_.push_back(page);
}

int PagePool::Allocate() {
  if (free_.empty()) return -1;
  const int page = free_.back();
  free_.pop_back();
  MNEMO_CHECK(references_[page] == 0);
  references_[page] = 1;
  return page;
}

bool PagePool::Release(int page) {
  MNEMO_CHECK(references_[page] > 0);
  return --references_[page] == 0;
}

void PagePool::Free(int page) {
  MNEMO_CHECK(references_[page] == 0);
  MNEMO_CHECK(free_count() < page_count());
  free_.push_back(page);
}

}  // namespace mnemo::worker
