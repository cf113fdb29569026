#include "server/worker/service/model_image.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "devices/base/build_id.h"
#include "devices/base/hash.h"

namespace mnemo::worker_service {
namespace {

// The tensors of the file that are not among `packed`, for hashing.
std::vector<devices::TensorSource> Others(const model::GgufFile& file,
                                          const std::vector<devices::TensorSource>& packed) {
  std::set<std::string> names;
  for (const devices::TensorSource& source : packed) names.insert(source.name);
  std::vector<devices::TensorSource> others;
  for (const model::GgufTensor& tensor : file.tensors()) {
    if (names.contains(tensor.name)) continue;
    int64_t rows = 1;
    for (size_t i = 1; i < tensor.dims.size(); ++i) rows *= tensor.dims[i];
    others.push_back({.name = tensor.name,
                      .type = tensor.type,
                      .rows = rows,
                      .cols = tensor.dims[0],
                      .data = tensor.data});
  }
  return others;
}

absl::StatusOr<std::string> IdOf(const model::GgufFile& file, const model::ModelConfig& config,
                                 std::map<std::string, Digest> digests,
                                 const std::vector<devices::TensorSource>& others) {
  MNEMO_ASSIGN_OR_RETURN(auto more, devices::HashSources(others));
  digests.merge(more);
  MNEMO_ASSIGN_OR_RETURN(const Digest digest, file.Identity(digests));
  // Not a name that was made of the path: the same file may lie elsewhere under another one.
  const bool named = file.Find("general.name") != nullptr;
  return fmt::format("{}-{}", named ? config.name : config.architecture, digest.Text());
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& path) {
  LoadedModel model;
  MNEMO_ASSIGN_OR_RETURN(model.file, model::GgufFile::Open(path));
  absl::StatusOr<model::ModelConfig> config = model::ReadModelConfig(*model.file);
  if (!config.ok()) return Annotate(config.status(), path);
  model.config = *std::move(config);
  return model;
}

absl::StatusOr<PackedModel> PackModel(const model::GgufFile& file, const model::ModelConfig& config,
                                      const devices::DeviceOptions& device) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightPacker> packer,
                         devices::CreateWeightPacker(device));
  MNEMO_ASSIGN_OR_RETURN(const std::vector<devices::TensorSource> sources,
                         model::WeightSources(file, config));
  const std::vector<devices::TensorSource> others = Others(file, sources);
  std::vector<std::string> kept;
  for (const devices::TensorSource& source : others) kept.push_back(source.name);
  PackedModel packed;
  const auto identify = [&](const auto& digests) -> absl::StatusOr<devices::ImageIdentity> {
    MNEMO_ASSIGN_OR_RETURN(packed.id, IdOf(file, config, digests, others));
    MNEMO_ASSIGN_OR_RETURN(std::string snapshot, file.Snapshot(kept));
    MNEMO_RETURN_IF_ERROR(file.CheckUnchanged());
    return devices::ImageIdentity{packed.id, std::move(snapshot)};
  };
  absl::StatusOr<UniqueFd> image = devices::BuildWeightImage(*packer, sources, identify);
  if (!image.ok()) {
    const std::string_view message(image.status().message().data(), image.status().message().size());
    return message.find(file.path()) == message.npos ? Annotate(image.status(), file.path()) : image.status();
  }
  packed.image = *std::move(image);
  return packed;
}

absl::StatusOr<std::optional<std::string>> ImageKey(const model::GgufFile& file,
                                                    const devices::DeviceOptions& device) {
  const std::optional<Digest> stamp = file.Stamp();
  const std::string build = BuildId();
  // Without a build id another program could not be told from this one.
  if (!stamp.has_value() || build == kUnknownBuildId) return std::nullopt;
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightPacker> packer,
                         devices::CreateWeightPacker(device));
  Hasher hasher;
  hasher.AddText(build);
  hasher.AddText(packer->layout());
  hasher.AddText(stamp->Text());
  return hasher.digest().Text();
}

absl::StatusOr<PackedModel> ReuseImage(UniqueFd image, const devices::DeviceOptions& device) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightPacker> packer,
                         devices::CreateWeightPacker(device));
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightImage> mapped,
                         devices::WeightImage::Map(image.get(), packer->layout()));
  return PackedModel{std::move(image), mapped->model_id()};
}

absl::StatusOr<std::string> ModelId(const model::GgufFile& file, const model::ModelConfig& config) {
  MNEMO_ASSIGN_OR_RETURN(std::string id, IdOf(file, config, {}, Others(file, {})));
  MNEMO_RETURN_IF_ERROR(file.CheckUnchanged());
  return id;
}

absl::StatusOr<model::ModelConfig> ConfigOfImage(const devices::WeightImage& image) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<model::GgufFile> file,
                         model::GgufFile::FromSnapshot(image.description()));
  return model::ReadModelConfig(*file);
}

}  // namespace mnemo::worker_service
