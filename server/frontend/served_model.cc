#include "server/frontend/served_model.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "devices/base/display_name.h"

namespace mnemo::frontend {
namespace {

absl::Status LoadText(const config::Config::Model& config, ServedModel* model) {
  MNEMO_ASSIGN_OR_RETURN(model->tokenizer, model::Tokenizer::FromGguf(*model->file));
  for (int32_t id = 0; id < model->tokenizer->size(); ++id) {
    model->longest_piece_bytes = std::max(model->longest_piece_bytes, model->tokenizer->Piece(id).size());
  }
  const std::vector<std::string> families = model::ChatTemplate::Families();
  if (!config.chat_template.empty() &&
      std::find(families.begin(), families.end(), config.chat_template) == families.end()) {
    return InvalidArgument("model.chat_template: '{}' is unknown; allowed: {}", config.chat_template,
                           fmt::join(families, ", "));
  }
  auto chat = model::ChatTemplate::Create(*model->file, config.chat_template);
  if (chat.ok()) {
    model->chat = std::move(chat).value();
  } else {
    model->chat = Annotate(chat.status(), "chat");
  }
  return absl::OkStatus();
}

absl::Status LoadBounds(const config::Config::Model& config, ServedModel* model) {
  model->context_tokens = model->config.context_tokens;
  if (config.context_tokens > 0) {
    if (config.context_tokens > model->config.context_tokens) {
      return InvalidArgument("model.context_tokens: {} is out of range; allowed: [64, {}], the model's",
                             config.context_tokens, model->config.context_tokens);
    }
    model->context_tokens = config.context_tokens;
  }
  const std::span<const int32_t> own = model->tokenizer->end_ids();
  model->end_ids.assign(own.begin(), own.end());
  if (config.end_token_ids.empty()) return absl::OkStatus();
  model->end_ids.clear();
  for (const int64_t id : config.end_token_ids) {
    if (id < 0 || id >= model->vocabulary()) {
      return InvalidArgument("model.end_token_ids: {} is out of range; allowed: [0, {})", id,
                             model->vocabulary());
    }
    model->end_ids.push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ServedModel::ContextText() const {
  return fmt::format("the context of {} tokens{}{}", context_tokens,
                     context_bound.empty() ? "" : ", which is what fits ", context_bound);
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const config::Config::Model& config) {
  if (config.path.empty()) {
    return InvalidArgument("model.path: empty; name a GGUF file, in the configuration or with --model FILE");
  }
  auto model = std::make_unique<ServedModel>();
  MNEMO_ASSIGN_OR_RETURN(model->file, model::GgufFile::Open(config.path));
  const auto named = [&config](const absl::Status& status) {
    return std::string(status.message()).find(config.path) == std::string::npos
               ? Annotate(status, config.path)
               : status;
  };
  auto model_config = model::ReadModelConfig(*model->file);
  if (!model_config.ok()) return named(model_config.status());
  model->config = std::move(model_config).value();
  // Workers need all tensors; what is wrong with them is better said here, once, than by each worker.
  if (auto sources = model::WeightSources(*model->file, model->config); !sources.ok()) {
    return named(sources.status());
  }
  if (const absl::Status text = LoadText(config, model.get()); !text.ok()) return named(text);
  MNEMO_RETURN_IF_ERROR(LoadBounds(config, model.get()));
  if (config.name.empty() && !model->config.name_problem.empty()) {
    return InvalidArgument("{}: general.name {}; set model.name to the name to serve it under", config.path,
                           model->config.name_problem);
  }
  if (const std::string problem = NameProblem(config.name); !problem.empty()) {
    return InvalidArgument("model.name: {}", problem);
  }
  model->name = config.name.empty() ? model->config.name : config.name;
  return model;
}

}  // namespace mnemo::frontend
