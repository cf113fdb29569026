#include "server/worker/service/model_image.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace mnemo::worker {
namespace {

// 64-bit FNV-1a (Fowler, Noll, Vo).
class Fingerprint {
 public:
  void Add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      hash_ = (hash_ ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
    }
  }
  void Add(std::string_view text) { Add(std::as_bytes(std::span(text))); }
  void Add(uint64_t value) { Add(std::as_bytes(std::span(&value, 1))); }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

// The head of each tensor, since hashing all of a large model takes longer than packing it.
constexpr size_t kHeadBytes = 4096;

std::string ModelId(const model::GgufFile& file, const model::ModelConfig& config) {
  Fingerprint fingerprint;
  fingerprint.Add(config.architecture);
  for (const model::GgufTensor& tensor : file.tensors()) {
    fingerprint.Add(tensor.name);
    fingerprint.Add(static_cast<uint64_t>(tensor.type));
    for (const int64_t dim : tensor.dims) fingerprint.Add(static_cast<uint64_t>(dim));
    fingerprint.Add(tensor.data.first(std::min(kHeadBytes, tensor.data.size())));
  }
  return fmt::format("{}-{:016x}", config.name, fingerprint.value());
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& path) {
  LoadedModel model;
  MNEMO_ASSIGN_OR_RETURN(model.file, model::GgufFile::Open(path));
  absl::StatusOr<model::ModelConfig> config = model::ReadModelConfig(*model.file);
  if (!config.ok()) return Annotate(config.status(), path);
  model.config = *std::move(config);
  model.id = ModelId(*model.file, model.config);
  return model;
}

absl::StatusOr<UniqueFd> PackWeights(const LoadedModel& model, const devices::DeviceOptions& device) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightPacker> packer,
                         devices::CreateWeightPacker(device));
  MNEMO_ASSIGN_OR_RETURN(const std::vector<devices::TensorSource> sources,
                         model::WeightSources(*model.file, model.config));
  absl::StatusOr<UniqueFd> image = devices::BuildWeightImage(*packer, sources, model.id);
  if (!image.ok()) return Annotate(image.status(), model.file->path());
  return image;
}

}  // namespace mnemo::worker
