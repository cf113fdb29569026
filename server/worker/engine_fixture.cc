#include "server/worker/engine_fixture.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "devices/device_registry.h"
#include "server/memory/attached_client.h"
#include "server/model/gguf.h"
#include "tests/support/tiny_model.h"

namespace mnemo::worker {
namespace {

constexpr std::chrono::seconds kPatience{60};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(std::string(value.status().message()));
  return std::move(value).value();
}

}  // namespace

std::vector<int32_t> EngineResult::Ids() const {
  std::vector<int32_t> ids;
  for (const EngineToken& token : tokens) ids.push_back(token.id);
  return ids;
}

void CollectingSink::Check(const EngineEvent& event, EngineResult* result) {
  const auto fail = [result](const char* what) {
    if (result->broken.empty()) result->broken = what;
  };
  if (result->order >= 0) fail("an event after the finish");
  if (event.prompt_tokens.empty() && event.tokens.empty() && event.finish == EngineFinish::kNone) {
    fail("an event that says nothing");
  }
  if (!event.prompt_tokens.empty() && !result->tokens.empty()) fail("a prompt token after an output token");
  for (const EngineToken& token : event.prompt_tokens) {
    if (!result->prompt_tokens.empty() && token.index != result->prompt_tokens.back().index + 1) {
      fail("a prompt token out of order");
    }
    if (token.has_logprob != (token.index > 0)) fail("a prompt token with or without logprob");
    result->prompt_tokens.push_back(token);
  }
  if (!event.tokens.empty() && result->tokens.empty()) result->first = event;
  if (!event.memory_steps.empty()) result->memory_steps.push_back(event.memory_steps);
  for (const EngineToken& token : event.tokens) {
    if (!result->tokens.empty() && token.index != result->tokens.back().index + 1) {
      fail("an output token out of order");
    }
    if (token.has_logprob && token.detail.id != token.id) fail("details of another token");
    result->tokens.push_back(token);
  }
  if ((event.finish == EngineFinish::kError) == event.status.ok()) fail("status and finish disagree");
}

void CollectingSink::OnStep(std::vector<EngineEvent> events) {
  Record(std::move(events));
  std::lock_guard gate(gate_);
}

void CollectingSink::Record(std::vector<EngineEvent> events) {
  std::lock_guard lock(mutex_);
  ++steps_;
  for (EngineEvent& event : events) {
    EngineResult& result = results_[{event.id, event.attempt}];
    Check(event, &result);
    if (!event.tokens.empty()) result.pauses.push_back(pauses_);
    if (event.finish == EngineFinish::kNone) continue;
    result.order = finished_++;
    result.last = std::move(event);
  }
  changed_.notify_all();
}

EngineResult CollectingSink::Wait(uint64_t id, uint32_t attempt) {
  std::unique_lock lock(mutex_);
  EngineResult& result = results_[{id, attempt}];
  if (!changed_.wait_for(lock, kPatience, [&] { return result.order >= 0; })) {
    result.broken = "no finish within a minute";
  }
  return result;
}

void CollectingSink::WaitForTokens(uint64_t id, size_t count, uint32_t attempt) {
  std::unique_lock lock(mutex_);
  EngineResult& result = results_[{id, attempt}];
  changed_.wait_for(lock, kPatience, [&] { return result.order >= 0 || result.tokens.size() >= count; });
}

bool CollectingSink::Finished(uint64_t id, uint32_t attempt) const {
  std::lock_guard lock(mutex_);
  const auto found = results_.find({id, attempt});
  return found != results_.end() && found->second.order >= 0;
}

size_t CollectingSink::steps_with_events() const {
  std::lock_guard lock(mutex_);
  return steps_;
}

EngineFixture::EngineFixture(const FixtureOptions& options) {
  testing::TinyModelOptions tiny;
  tiny.architecture = options.architecture;
  tiny.context_tokens = options.context_tokens;
  file_ = testing::TinyModel(tiny);
  const auto gguf = Must(model::GgufFile::Parse(file_, "tiny.gguf", {}));
  const model::ModelConfig config = Must(model::ReadModelConfig(*gguf));
  vocabulary_ = config.vocabulary;
  device_ = Must(devices::CreateDevice({.kind = options.device,
                                        .threads = options.threads,
                                        .kv_type = options.kv_type,
                                        .progress = &progress_}));
  const UniqueFd image =
      Must(devices::BuildWeightImage(device_->packer(), Must(model::WeightSources(*gguf, config)), "tiny"));
  weights_ = Must(devices::WeightImage::Map(image.get(), device_->packer().layout()));
  transformer_ = Must(
      model::Transformer::Create(config, *weights_, device_.get(),
                                 {.max_rows = options.engine.max_batch_rows,
                                  .max_logit_rows = options.max_logit_rows,
                                  .max_sequences = options.engine.max_running,
                                  .indexed_layers = memory::IndexedLayers(config, options.dense_layers)}));
  EngineOptions engine_options = options.engine;
  engine_options.progress = &progress_;
  if (!options.memory_address.empty()) {
    const memory::AttachOptions link = {
        .address = options.memory_address,
        .owner = "engine",
        .shape = memory::ShapeOf(*transformer_),
        .max_queries = options.engine.max_running,
        .kv_format = options.engine.extra_pages > 0 ? memory::KvFormat(device_->info().kv_type) : 0,
        .wrap = options.wrap_attachment};
    engine_options.attach_memory = [link, device = device_.get()] {
      return memory::AttachedClient::Attach(link, device);
    };
  }
  engine_ = Must(Engine::Create(engine_options, transformer_.get(), device_.get(), &sink_));
}

EngineFixture::~EngineFixture() = default;

absl::StatusOr<std::unique_ptr<Engine>> EngineFixture::Create(const EngineOptions& options,
                                                              EngineSink* sink) {
  return Engine::Create(options, transformer_.get(), device_.get(), sink);
}

EngineResult EngineFixture::Run(EngineRequest request) {
  const uint64_t id = request.id;
  const uint32_t attempt = request.attempt;
  const absl::Status status = engine_->Submit(std::move(request));
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  return sink_.Wait(id, attempt);
}

bool SameToken(const EngineToken& a, const EngineToken& b) {
  // The bits of floats are compared, and there is no padding.
  return a.index == b.index && a.id == b.id && a.has_logprob == b.has_logprob &&
         // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
         std::memcmp(&a.detail, &b.detail, sizeof a.detail) == 0;
}

bool SameTokens(const std::vector<EngineToken>& a, const std::vector<EngineToken>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameToken);
}

std::vector<std::string> DeviceKindNames() {
  std::vector<std::string> names;
  for (const devices::DeviceKind& kind : devices::DeviceKinds()) names.push_back(kind.name);
  return names;
}

}  // namespace mnemo::worker
