// Files of sysfs and procfs: some lines of text, made when they are read.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"

namespace mnemo::energy {

// At most the first 4,096 bytes, without blanks at the end. NOT_FOUND, PERMISSION_DENIED, or UNAVAILABLE for
// any other error, with the path. Blocks to read.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

// A file that holds one decimal number, kept open between readings: the kernel makes its text anew for each.
// For counts that grow: one that repeats is read again from the path, where another file may have come or the
// file may have gone. One thread.
class NumberFile {
 public:
  // Opens nothing yet.
  explicit NumberFile(std::string path) : path_(std::move(path)) {}
  // Errors as of ReadSmallFile. DATA_LOSS: the file holds something else than one number. Blocks to read.
  absl::StatusOr<uint64_t> Read();

 private:
  absl::StatusOr<uint64_t> ReadOpen() const;

  const std::string path_;
  UniqueFd fd_;
  absl::StatusOr<uint64_t> last_;
};

// The same, once.
absl::StatusOr<uint64_t> ReadNumber(const std::string& path);

}  // namespace mnemo::energy
