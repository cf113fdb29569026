// A program that is started again and again, as it was when it was opened.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::dispatch {

struct Program {
  Program() = default;
  // Only a path, looked up at each start.
  Program(std::string at) : path(std::move(at)) {}       // NOLINT: a path is a program
  Program(const char* at) : Program(std::string(at)) {}  // NOLINT

  // Holds the file itself: a later upgrade or removal changes nothing. A script is held by its path as long
  // as that is there, since it names others by its own. FAILED_PRECONDITION, with `key` before it: it cannot
  // be run.
  static absl::StatusOr<Program> Open(std::string_view key, const std::string& path);

  std::string path;
  std::shared_ptr<const UniqueFd> file;  // null: the path is all there is
  bool is_script = false;
};

}  // namespace mnemo::dispatch
