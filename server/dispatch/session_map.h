// Where each session was last. One that is unused for too long is forgotten, and beyond a bound the least
// recently used one.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

namespace mnemo::dispatch {

// Not thread-safe.
class SessionMap {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Place {
    int worker = -1;
    uint64_t life = 0;
  };
  // At most `capacity` sessions (0 = none), each until it is idle for `ttl`.
  SessionMap(size_t capacity, std::chrono::milliseconds ttl) : capacity_(capacity), ttl_(ttl) {}

  // The session is used now, there.
  void Set(const std::string& session, Place place, TimePoint now) {
    if (const auto it = index_.find(session); it != index_.end()) {
      it->second->place = place;
      Use(it->second, now);
      return;
    }
    if (capacity_ == 0) return;
    if (order_.size() >= capacity_) {
      index_.erase(order_.back().session);
      order_.pop_back();
    }
    order_.push_front({session, place, now});
    index_[session] = order_.begin();
  }
  // The session is used now, if it is known.
  void Touch(const std::string& session, TimePoint now) {
    if (const auto it = index_.find(session); it != index_.end()) Use(it->second, now);
  }
  // A worker of -1 when the session is not known.
  Place Find(const std::string& session) const {
    const auto it = index_.find(session);
    return it == index_.end() ? Place() : it->second->place;
  }
  bool Erase(const std::string& session) {
    const auto it = index_.find(session);
    if (it == index_.end()) return false;
    order_.erase(it->second);
    index_.erase(it);
    return true;
  }
  // When the first session is idle for too long, unless it is used meanwhile; the greatest time when there is
  // none.
  TimePoint NextEnd() const { return order_.empty() ? TimePoint::max() : order_.back().used + ttl_; }
  // Forgets sessions that are idle for too long, at most `max_count`, and returns them. Those in `busy` are
  // not idle.
  std::vector<std::string> TakeIdle(TimePoint now, const absl::flat_hash_set<std::string_view>& busy,
                                    size_t max_count) {
    std::vector<std::string> taken;
    while (taken.size() < max_count && NextEnd() <= now) {
      if (busy.contains(order_.back().session)) {
        Use(--order_.end(), now);
        continue;
      }
      taken.push_back(order_.back().session);
      Erase(taken.back());
    }
    return taken;
  }
  size_t size() const { return order_.size(); }

 private:
  struct Entry {
    std::string session;
    Place place;
    TimePoint used;
  };
  using Order = std::list<Entry>;  // most recently used first

  void Use(Order::iterator entry, TimePoint now) {
    entry->used = now;
    order_.splice(order_.begin(), order_, entry);
  }

  const size_t capacity_;
  const std::chrono::milliseconds ttl_;
  Order order_;
  absl::flat_hash_map<std::string, Order::iterator> index_;
};

}  // namespace mnemo::dispatch
