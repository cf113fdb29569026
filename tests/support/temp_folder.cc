#include "tests/support/temp_folder.h"

#include <cstdlib>
#include <fstream>
#include <system_error>

#include "devices/base/status.h"

namespace mnemo::testing {

TempFolder::TempFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "mnemo-test-XXXXXX").string();
  MNEMO_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempFolder::Write(const std::string& name, const std::string& text) const {
  std::ofstream(path_ / name, std::ios::binary) << text;
  return path(name);
}

}  // namespace mnemo::testing
