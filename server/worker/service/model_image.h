// A model file as a worker needs it, and its weights packed for a device: done once in mnemod for all of its
// workers, or in a worker that was started by hand.
#pragma once

#include <memory>
#include <string>

#include "devices/base/status.h"
#include "devices/base/unique_fd.h"
#include "devices/device.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"

namespace mnemo::worker {

struct LoadedModel {
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
  // Name and fingerprint, e.g. "SmolLM2-135M-Instruct-3f9c0a7b12d45e68": equal for files with the same
  // network and, in all likelihood, the same weights, wherever they lie.
  std::string id;
};

// Opens and checks the file; reads no more of the weights than the fingerprint takes (the first kilobytes of
// each tensor). Errors as GgufFile::Open and ReadModelConfig.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path);

// Packs the weights as the device that `device` describes wants them. A sealed memfd.
absl::StatusOr<UniqueFd> PackWeights(const LoadedModel& model, const devices::DeviceOptions& device);

}  // namespace mnemo::worker
