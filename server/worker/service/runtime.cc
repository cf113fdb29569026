#include "server/worker/service/runtime.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "server/link/frame.h"
#include "server/memory/attached_client.h"
#include "server/worker/service/convert.h"
#include "server/worker/service/device_options.h"
#include "server/worker/service/kv_plan.h"

namespace mnemo::worker_service {
namespace {

struct Weights {
  std::unique_ptr<devices::WeightImage> image;
  model::ModelConfig config;
};

// The layout of the weights does not depend on the model, so that a packer can be had before it is known.
absl::StatusOr<std::string> LayoutOf(const config::Config& config) {
  MNEMO_ASSIGN_OR_RETURN(const std::unique_ptr<devices::WeightPacker> packer,
                         devices::CreateWeightPacker(DeviceOptionsOf(config, {})));
  return packer->layout();
}

// Inherited weights come with the configuration that they were packed under: the file may be another one by
// now.
absl::StatusOr<Weights> GetWeights(const WorkerOptions& options) {
  UniqueFd fd(options.weights_fd);
  if (!fd.valid()) {
    MNEMO_ASSIGN_OR_RETURN(const LoadedModel model, LoadModel(options.config.model.path));
    MNEMO_ASSIGN_OR_RETURN(PackedModel packed, PackModel(*model.file, model.config,
                                                         DeviceOptionsOf(options.config, model.config)));
    fd = std::move(packed.image);
  }
  Weights weights;
  MNEMO_ASSIGN_OR_RETURN(const std::string layout, LayoutOf(options.config));
  MNEMO_ASSIGN_OR_RETURN(weights.image, devices::WeightImage::Map(fd.get(), layout));
  MNEMO_ASSIGN_OR_RETURN(weights.config, ConfigOfImage(*weights.image));
  return weights;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create(const WorkerOptions& options) {
  auto runtime = std::unique_ptr<Runtime>(new Runtime);
  MNEMO_ASSIGN_OR_RETURN(Weights weights, GetWeights(options));
  runtime->model_ = std::move(weights.config);
  runtime->weights_ = std::move(weights.image);
  const model::ModelConfig& model = runtime->model_;
  const config::Config& config = options.config;
  devices::DeviceOptions device_options = DeviceOptionsOf(config, model);
  device_options.cpus = options.cpus;
  device_options.progress = &runtime->progress_;
  MNEMO_ASSIGN_OR_RETURN(runtime->device_, devices::CreateDevice(device_options));
  const config::Config::Engine& engine = config.engine;
  const int sequences = std::min(engine.max_running, engine.max_batch_rows);
  const model::TransformerOptions transformer_options = {
      .max_rows = engine.max_batch_rows,
      .max_logit_rows = sequences,
      .max_sequences = sequences,
      .indexed_layers = memory::IndexableLayers(model, config.attention.dense_layers)};
  MNEMO_ASSIGN_OR_RETURN(
      runtime->transformer_,
      model::Transformer::Create(model, *runtime->weights_, runtime->device_.get(), transformer_options));
  MNEMO_ASSIGN_OR_RETURN(const KvPlan plan,
                         PlanKv(config, model, runtime->device_->info().kv_type, AvailableResources()));
  if (!plan.bound.empty()) {
    spdlog::warn("{} of the model's {} tokens of context are offered: that is {}", plan.context_tokens,
                 model.context_tokens, plan.bound);
  }
  const bool offload =
      config.memory.placement == "memory_service" || config.memory.kv_residency == "memory_service";
  runtime->engine_options_ = {.max_batch_rows = engine.max_batch_rows,
                              .max_running = engine.max_running,
                              .max_waiting = engine.max_waiting,
                              .context_tokens = plan.context_tokens,
                              .kv_pages = plan.pages,
                              .reserve_tokens = engine.reserve_tokens,
                              .prefix_cache = engine.prefix_cache,
                              .max_sessions = engine.max_sessions,
                              .methods = {.entry_tokens = config.attention.entry_tokens},
                              .placement = offload ? memory::AttentionSettings::Placement::kMemoryService
                                                   : memory::AttentionSettings::Placement::kInline,
                              .attach_memory = runtime->AttachMemory(options, sequences),
                              .extra_pages = devices::PagesFor(plan.resident_tokens),
                              .service_wait = std::chrono::milliseconds(config.memory.kv_wait_ms),
                              .progress = &runtime->progress_};
  return runtime;
}

internal::v1::Ready Runtime::MakeReady(const WorkerOptions& options) const {
  const devices::DeviceInfo& info = device_->info();
  internal::v1::Ready ready;
  ready.set_protocol(link::kProtocolVersion);
  // All that decides a number. Device: its kind, instruction set, KV type, layout of weights and build.
  // Model: every byte (PackedModel::id), which covers what is read from the file. Sparse attention: its dense
  // layers and the tokens of an entry. Not in it, since no number depends on them: context, threads, batch,
  // pools and placements.
  ready.set_numerics_id(fmt::format("{} {} sparse-{}-{}", info.numerics_id, weights_->model_id(),
                                    options.config.attention.dense_layers,
                                    options.config.attention.entry_tokens));
  ready.set_device(info.name);
  ready.set_model_name(model_.name);
  ready.set_architecture(model_.architecture);
  ready.set_context_tokens(engine_options_.context_tokens);
  ready.set_kv_pages_total(engine_options_.kv_pages);
  ready.set_kv_page_tokens(devices::kPageTokens);
  ready.set_max_running(options.config.engine.max_running);
  ready.set_pid(::getpid());
  ready.set_vocabulary(model_.vocabulary);
  ready.set_isa(info.isa);
  ready.set_threads(info.threads);
  ready.set_model_id(weights_->model_id());
  ready.set_has_memory_service(!options.config.memory.addresses.empty());
  ready.add_attention_methods(static_cast<int32_t>(memory::AttentionSettings::Method::kDense));
  if (!transformer_->options().indexed_layers.empty()) {
    for (const memory::methods::Method* method : memory::methods::Methods()) {
      if (method->weights.empty()) ready.add_attention_methods(static_cast<int32_t>(method->id));
    }
  }
  return ready;
}

memory::Pipeline::Attach Runtime::AttachMemory(const WorkerOptions& options, int max_queries) const {
  const config::Config::Memory& settings = options.config.memory;
  if (settings.addresses.empty() || transformer_->options().indexed_layers.empty()) return {};
  const bool keeps_kv = settings.kv_residency == "memory_service";
  const memory::AttachOptions link = {.address = settings.addresses.front(),
                                      .owner = options.name,
                                      .shape = memory::ShapeOf(*transformer_),
                                      .max_queries = max_queries,
                                      .kv_format = keeps_kv ? memory::KvFormat(device_->info().kv_type) : 0,
                                      .timeout = std::chrono::milliseconds(settings.round_trip_timeout_ms)};
  return [link, device = device_.get()] { return memory::AttachedClient::Attach(link, device); };
}

absl::StatusOr<std::unique_ptr<worker::Engine>> Runtime::CreateEngine(worker::EngineSink* sink) {
  return worker::Engine::Create(engine_options_, transformer_.get(), device_.get(), sink);
}

}  // namespace mnemo::worker_service
