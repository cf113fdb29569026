// gguf_seeds FOLDER: writes the seed corpus of gguf_fuzz, the smallest model of every architecture and of
// every format.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace {

using mnemo::devices::TensorType;
using mnemo::testing::GgufWriter;
using mnemo::testing::TinyModelOptions;

void Write(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  for (const char* architecture : {"llama", "qwen2", "qwen3", "gemma3"}) {
    TinyModelOptions options{.architecture = architecture,
                             .layers = 1,
                             .dim = 4,
                             .ffn_dim = 4,
                             .heads = 2,
                             .kv_heads = 1,
                             .head_dim = 2};
    options.rope_factors = options.architecture == "llama";
    Write(folder / architecture, mnemo::testing::TinyModel(options));
  }
  int number = 0;
  for (const TensorType type : {TensorType::kF16, TensorType::kQ4_1, TensorType::kQ8_0, TensorType::kQ6_K}) {
    GgufWriter writer;
    writer.AddString("general.architecture", "none");
    writer.AddInts("ints", std::vector<int32_t>{1, 2});
    writer.AddFloats("floats", std::vector<float>{1, 2});
    const mnemo::devices::TensorTypeTraits& traits = mnemo::devices::Traits(type);
    writer.AddTensor("w", type, {traits.block_elements, 2},
                     std::vector<std::byte>(static_cast<size_t>(2 * traits.block_bytes)));
    Write(folder / ("tensor" + std::to_string(number++)), writer.Bytes());
  }
  return 0;
}
