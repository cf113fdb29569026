// Tests of the downloaded models' tokenizers against their references.
#include <fmt/ranges.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "server/model/vocabulary_files.h"

namespace mnemo::model {
namespace {

// scripts/setup.sh puts the models into the folder MNEMO_MODELS.
std::string ModelFile(const std::string& name) {
  const char* const folder = std::getenv("MNEMO_MODEL_DIR");
  return std::filesystem::path(folder == nullptr ? MNEMO_MODELS : folder) / name;
}

void CompareWithGolden(const std::string& name, const std::string& file_name) {
  const std::string path = ModelFile(file_name);
  INFO(path << ": set MNEMO_MODEL_DIR or run scripts/setup.sh");
  REQUIRE(std::filesystem::exists(path));
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path, {.metadata_only = true});
  REQUIRE(file.ok());
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(**file);
  REQUIRE(tokenizer.ok());
  const nlohmann::json golden = ReadJson(MNEMO_TEST_DATA "/tokenizer_golden.json");
  const nlohmann::json strings = ReadJson(MNEMO_TEST_DATA "/tokenizer_strings.json");
  const std::string hashes = golden["hashes"][name].get<std::string>();
  REQUIRE(hashes.size() == 8 * strings.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::vector<int32_t> ids = (*tokenizer)->Encode(strings[i].get<std::string>(), {});
    INFO("string " << i << ": " << strings[i].dump() << " became " << fmt::format("{}", ids));
    CHECK(HashIds(ids) == hashes.substr(8 * i, 8));
  }
}

TEST_CASE("SmolLM2's ids are those of Hugging Face's tokenizers") {
  CompareWithGolden("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
}

TEST_CASE("Gemma 3's ids are those of SentencePiece") {
  CompareWithGolden("gemma3", "gemma-3-270m-q4_k_m.gguf");
}

}  // namespace
}  // namespace mnemo::model
