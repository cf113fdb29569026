// The directory of the sockets of workers and memory services.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "devices/base/undo_at_end.h"
#include "devices/base/unique_fd.h"

namespace mnemo::dispatch {

// Thread-safe but for moving. A private directory is removed, with what is in it, by the destructor.
class RuntimeDir {
 public:
  // `configured` is workers.runtime_dir, made if it is missing and locked for this process alone. Empty: a
  // private directory under $XDG_RUNTIME_DIR, or under /tmp where this process could not make the former
  // again. A path too long for a socket gives way to a private directory in /tmp. FAILED_PRECONDITION names
  // the directory, and the process that holds it.
  static absl::StatusOr<std::shared_ptr<const RuntimeDir>> Make(const std::string& configured);
  ~RuntimeDir();
  RuntimeDir(const RuntimeDir&) = delete;
  RuntimeDir& operator=(const RuntimeDir&) = delete;

  // Makes it again when somebody removed it. Before each start of a child.
  absl::Status Ensure() const;

  std::string SocketPath(std::string_view name) const;
  const std::string& path() const { return path_; }
  bool owned() const { return owned_; }  // private

 private:
  RuntimeDir() = default;
  absl::Status MakePrivate();
  absl::Status Lock() const;
  void Remove() const;

  std::string path_;
  bool owned_ = false;
  std::string configured_;  // locked; empty = none
  mutable UniqueFd lock_;
  UndoAtEnd undo_;
};

}  // namespace mnemo::dispatch
