#include "tests/golden/invariant.h"

#include <catch2/catch.hpp>

#include "tests/support/tiny_model.h"

namespace mnemo::golden {
namespace {

// Chunk 1 / 7 / 512 x batch 1 / 8 / 32 x threads 1 / 2. The long prompt reaches into the second split of
// attention.
void CheckTiny(const testing::TinyModelOptions& tiny, const InvariantMatrix& matrix) {
  const std::vector<std::byte> bytes = testing::TinyModel(tiny);
  const auto file = model::GgufFile::Parse(bytes, "tiny.gguf", {});
  REQUIRE(file.ok());
  const std::vector<devices::DeviceOptions> all = AllDevices();
  REQUIRE_FALSE(all.empty());
  for (const devices::DeviceOptions& device : all) {
    INFO(tiny.architecture << " on " << device.kind << " " << device.isa);
    const auto result = CheckInvariant(**file, device, matrix);
    REQUIRE(result.status() == absl::OkStatus());
    CHECK(result->combinations ==
          static_cast<int>(matrix.chunks.size() * matrix.batches.size() * matrix.threads.size()));
    CHECK(result->sequences_differ);
    CHECK(result->wrong == std::vector<std::string>());
  }
}

const std::vector<int> kChunks = {1, 7, 512, InvariantMatrix::kUneven};
constexpr int kLongPrompt = devices::kKvSplitTokens + 37;

}  // namespace

TEST_CASE("Logits are the same bits in every chunking, batch and count of threads") {
  testing::TinyModelOptions tiny;
  tiny.layers = 1;
  SECTION("llama, a prompt of two attention splits") {
    tiny.matrix_type = devices::TensorType::kQ4_1;
    tiny.context_tokens = 2048;
    CheckTiny(tiny, {kChunks, {1, 8}, {1, 2}, kLongPrompt, 3});
  }
  SECTION("llama, many sequences") {
    tiny.layers = 2;
    tiny.matrix_type = devices::TensorType::kQ8_0;
    CheckTiny(tiny, {kChunks, {1, 8, 32}, {1, 2}, 80, 2});
  }
  SECTION("qwen2") {
    tiny.architecture = "qwen2";
    tiny.matrix_type = devices::TensorType::kQ5_1;
    CheckTiny(tiny, {kChunks, {1, 8, 32}, {1, 2}, 70, 2});
  }
  SECTION("qwen3") {
    tiny.architecture = "qwen3";
    tiny.matrix_type = devices::TensorType::kQ6_K;
    tiny.dim = 256;
    tiny.ffn_dim = 256;
    CheckTiny(tiny, {kChunks, {1, 8, 32}, {1, 2}, 70, 2});
  }
  SECTION("gemma3, windows that begin within a page") {
    tiny.architecture = "gemma3";
    tiny.matrix_type = devices::TensorType::kQ4_0;
    tiny.layers = 6;
    tiny.sliding_window = 40;
    CheckTiny(tiny, {kChunks, {1, 8, 32}, {1, 2}, 100, 2});
  }
}

}  // namespace mnemo::golden
