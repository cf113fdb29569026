// Sessions and the prefix that each keeps in the cache. It is a hint only: sessions give up their prefixes,
// least recently used first, before a request has to wait or to be preempted for lack of pages.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <list>
#include <string>

#include "server/worker/prefix_cache.h"

namespace mnemo::worker {

// Not thread-safe.
class SessionTable {
 public:
  // Remembers at most `max_sessions`; 0: none. `cache` outlives the object.
  SessionTable(PrefixCache* cache, int max_sessions) : cache_(cache), max_sessions_(max_sessions) {}

  // The session keeps `page` and its parents from now on, instead of what it kept before. The caller holds
  // `page`, which is published.
  void Keep(const std::string& session_id, int page);
  // Marks the session as the one used last. Nothing happens to an unknown one.
  void Touch(const std::string& session_id);
  void Forget(const std::string& session_id);
  void ForgetAll();
  // Forgets the least recently used session. False: there is none.
  bool ForgetOldest();
  int size() const { return static_cast<int>(sessions_.size()); }

 private:
  struct Session {
    std::string id;
    int page = -1;
  };
  PrefixCache* cache_;
  int max_sessions_;
  std::list<Session> sessions_;  // most recently used first
  absl::flat_hash_map<std::string, std::list<Session>::iterator> index_;
};

}  // namespace mnemo::worker
