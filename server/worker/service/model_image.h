// A model file as a worker needs it, and its weights packed for a device. mnemod does this once for all of
// its workers; a worker that was started by hand does it itself.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/device.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"

namespace mnemo::worker_service {

struct LoadedModel {
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
};

// Opens and checks the file; reads no weights. Errors as GgufFile::Open and ReadModelConfig.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path);

struct PackedModel {
  UniqueFd image;  // a sealed memfd, with all that a worker needs of the file
  // Name and hash (XXH3, 128 bits) of all metadata and of every byte of every tensor, e.g.
  // "SmolLM2-135M-Instruct-<32 digits>". Equal for the same model wherever it lies and however it is split.
  std::string id;
};

// Packs the weights as the device that `device` describes wants them, and hashes them on the way. DATA_LOSS
// when the file was changed since it was opened.
absl::StatusOr<PackedModel> PackModel(const model::GgufFile& file, const model::ModelConfig& config,
                                      const devices::DeviceOptions& device);

// A key of the image that PackModel makes of this file for this device, in this program: equal keys stand for
// equal images. 32 characters. nullopt: the file changed just now (GgufFile::Stamp).
absl::StatusOr<std::optional<std::string>> ImageKey(const model::GgufFile& file,
                                                    const devices::DeviceOptions& device);

// An image of an earlier process that had the same key. Errors as WeightImage::Map.
absl::StatusOr<PackedModel> ReuseImage(UniqueFd image, const devices::DeviceOptions& device);

// The same id without packing; reads the whole file.
absl::StatusOr<std::string> ModelId(const model::GgufFile& file, const model::ModelConfig& config);

// The configuration of the model whose weights `image` has, from the image alone.
absl::StatusOr<model::ModelConfig> ConfigOfImage(const devices::WeightImage& image);

}  // namespace mnemo::worker_service
