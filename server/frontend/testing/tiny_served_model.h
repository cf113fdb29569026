// The tiny model of tests/support as the front end loads it: ids 0..255 are the bytes.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "server/frontend/served_model.h"
#include "tests/support/tiny_model.h"

namespace mnemo::frontend::testing {

inline constexpr int32_t kEndId = 257;  // <|im_end|>

inline std::unique_ptr<const ServedModel> LoadTiny(config::Config::Model settings = {}) {
  std::string folder = (std::filesystem::temp_directory_path() / "mnemo-frontend-XXXXXX").string();
  MNEMO_CHECK(mkdtemp(folder.data()) != nullptr);
  settings.path = mnemo::testing::WriteTinyModel({}, folder);
  auto model = LoadServedModel(settings);
  std::filesystem::remove_all(folder);  // the file stays mapped
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    MNEMO_CHECK(model.ok());
  }
  return *std::move(model);
}

inline std::vector<int32_t> Ids(const std::string& bytes) {
  std::vector<int32_t> ids;
  for (const char c : bytes) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

}  // namespace mnemo::frontend::testing
