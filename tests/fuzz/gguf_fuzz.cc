// Any bytes as a GGUF file: parsed, its configuration read, and every byte that the result points to read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "server/model/gguf.h"
#include "server/model/model_config.h"

namespace {

using mnemo::model::GgufFile;

// Reads the ends of a range, so that the address sanitizer sees one that leaves the file.
void Touch(std::span<const std::byte> data) {
  volatile std::byte sink{};
  if (data.empty()) return;
  sink = data.front();
  sink = data.back();
}

void ReadAll(const GgufFile& file) {
  for (const char* key :
       {"general.name", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "llama.block_count"}) {
    (void)file.GetInt(key).ok();
    (void)file.GetFloat(key).ok();
    (void)file.GetBool(key).ok();
    (void)file.GetInts(key).ok();
    (void)file.GetFloats(key).ok();
    const auto strings = file.GetStrings(key);
    if (!strings.ok()) continue;
    for (const std::string_view text : *strings) Touch(std::as_bytes(std::span(text)));
  }
  for (const mnemo::model::GgufTensor& tensor : file.tensors()) Touch(tensor.data.memory());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const auto text_only = GgufFile::Parse(bytes, "fuzz.gguf", {.metadata_only = true});
  const auto file = GgufFile::Parse(bytes, "fuzz.gguf", {});
  if (file.ok()) MNEMO_CHECK(text_only.ok());
  if (text_only.ok()) ReadAll(**text_only);
  if (!file.ok()) return 0;
  ReadAll(**file);
  const auto config = mnemo::model::ReadModelConfig(**file);
  if (!config.ok()) return 0;
  const auto sources = mnemo::model::WeightSources(**file, *config);
  MNEMO_CHECK(sources.ok());
  for (const mnemo::devices::TensorSource& source : *sources) {
    MNEMO_CHECK(mnemo::devices::CheckTensorSource(source).ok());
    Touch(source.data.memory());
  }
  return 0;
}
