// Where each session was last; the least recently used one is forgotten beyond a bound.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <utility>

namespace mnemo::dispatch {

class SessionMap {
 public:
  struct Place {
    int worker = -1;
    uint64_t life = 0;
  };
  explicit SessionMap(size_t capacity) : capacity_(capacity) {}

  void Set(const std::string& session, Place place) {
    if (const auto it = index_.find(session); it != index_.end()) {
      it->second->second = place;
      order_.splice(order_.begin(), order_, it->second);
      return;
    }
    if (capacity_ == 0) return;
    if (order_.size() >= capacity_) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    order_.emplace_front(session, place);
    index_[session] = order_.begin();
  }
  // A worker of -1 when the session is not known.
  Place Find(const std::string& session) const {
    const auto it = index_.find(session);
    return it == index_.end() ? Place() : it->second->second;
  }
  bool Erase(const std::string& session) {
    const auto it = index_.find(session);
    if (it == index_.end()) return false;
    order_.erase(it->second);
    index_.erase(it);
    return true;
  }

 private:
  using Order = std::list<std::pair<std::string, Place>>;  // most recently used first
  const size_t capacity_;
  Order order_;
  absl::flat_hash_map<std::string, Order::iterator> index_;
};

}  // namespace mnemo::dispatch
