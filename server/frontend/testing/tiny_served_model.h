// The tiny model of tests/support as the front end loads it: ids 0..255 are the bytes.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "server/frontend/served_model.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_model.h"

namespace mnemo::frontend::testing {

inline constexpr int32_t kEndId = 257;  // <|im_end|>

inline std::unique_ptr<const ServedModel> LoadTiny(config::Config::Model settings = {}) {
  const mnemo::testing::TempFolder folder;  // the file stays open when it is gone
  settings.path = mnemo::testing::WriteTinyModel({}, folder.path());
  auto model = LoadServedModel(settings);
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
