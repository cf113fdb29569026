// Everything a worker has beside its link: model, weights, device, engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "devices/device.h"
#include "mnemo/internal/worker.pb.h"
#include "server/model/transformer.h"
#include "server/worker/engine.h"
#include "server/worker/service/model_image.h"
#include "server/worker/service/worker_options.h"

namespace mnemo::worker_service {

class Runtime {
 public:
  // Takes over options.weights_fd, which has all of the model; without it reads the file and packs its
  // weights.
  static absl::StatusOr<std::unique_ptr<Runtime>> Create(const WorkerOptions& options);

  // The first message of a session.
  internal::v1::Ready MakeReady(const WorkerOptions& options) const;
  const std::atomic<uint64_t>* progress() const { return &progress_; }
  // `sink` outlives the engine, which lives no longer than this object.
  absl::StatusOr<std::unique_ptr<worker::Engine>> CreateEngine(worker::EngineSink* sink);

 private:
  Runtime() = default;
  memory::Pipeline::Attach AttachMemory(const WorkerOptions& options, int max_queries) const;

  std::atomic<uint64_t> progress_{0};
  model::ModelConfig model_;
  std::unique_ptr<devices::WeightImage> weights_;
  std::unique_ptr<devices::Device> device_;
  std::unique_ptr<model::Transformer> transformer_;
  worker::EngineOptions engine_options_;
};

}  // namespace mnemo::worker_service
