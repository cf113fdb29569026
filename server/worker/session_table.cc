#include "server/worker/session_table.h"

#include "devices/base/status.h"

namespace mnemo::worker {

void SessionTable::Keep(const std::string& session_id, int page) {
  if (max_sessions_ == 0) return;
  cache_->Keep(page);
  const auto found = index_.find(session_id);
  if (found != index_.end()) {
    cache_->Unkeep(found->second->page);
    found->second->page = page;
    sessions_.splice(sessions_.begin(), sessions_, found->second);
    return;
  }
  if (size() == max_sessions_) ForgetOldest();
  sessions_.push_front({session_id, page});
  index_.emplace(session_id, sessions_.begin());
}

void SessionTable::Touch(const std::string& session_id) {
  const auto found = index_.find(session_id);
  if (found != index_.end()) sessions_.splice(sessions_.begin(), sessions_, found->second);
}

void SessionTable::Forget(const std::string& session_id) {
  const auto found = index_.find(session_id);
  if (found == index_.end()) return;
  cache_->Unkeep(found->second->page);
  sessions_.erase(found->second);
  index_.erase(found);
}

void SessionTable::ForgetAll() {
  while (ForgetOldest()) {
  }
}

bool SessionTable::ForgetOldest() {
  if (sessions_.empty()) return false;
  cache_->Unkeep(sessions_.back().page);
  index_.erase(sessions_.back().id);
  sessions_.pop_back();
  return true;
}

}  // namespace mnemo::worker
