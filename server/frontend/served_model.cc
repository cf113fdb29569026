#include "server/frontend/served_model.h"

#include <algorithm>

#include "devices/base/display_name.h"

namespace mnemo::frontend {
namespace {

absl::Status LoadText(const config::Config::Model& config, const config::Config::Text& text,
                      ServedModel* model) {
  auto chat_template = model::ChatTemplate::Read(*model->file, config.chat_template);
  // Markers of a template make control tokens, also of one that the file does not hold.
  MNEMO_ASSIGN_OR_RETURN(
      model->tokenizer,
      model::Tokenizer::FromGguf(*model->file, chat_template.ok() ? chat_template->text : std::string()));
  for (int32_t id = 0; id < model->tokenizer->size(); ++id) {
    model->longest_piece_bytes = std::max(model->longest_piece_bytes, model->tokenizer->Piece(id).size());
  }
  if (!chat_template.ok()) {
    if (!config.chat_template.empty()) return chat_template.status();
    model->chat = Annotate(chat_template.status(), "chat");
    return absl::OkStatus();
  }
  chat::ChatRenderer::Options options;
  options.chat_template = *std::move(chat_template);
  for (int32_t id = 0; id < model->tokenizer->size(); ++id) {
    if (model->tokenizer->IsControl(id)) {
      options.control_tokens.emplace_back(model->tokenizer->Piece(id));
    }
  }
  options.interpreter = text.python;
  options.timeout = std::chrono::milliseconds(text.template_timeout_ms);
  options.memory_bytes = text.template_memory_bytes;
  options.output_bytes = text.template_output_bytes;
  model->chat = std::make_unique<chat::ChatRenderer>(std::move(options));
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

absl::Status ServedModel::ChatStatus() const {
  if (!chat.ok()) return chat.status();
  const absl::Status status = (*chat)->WaitStarted();
  return status.code() == absl::StatusCode::kUnimplemented ? status : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const config::Config::Model& config,
                                                             const config::Config::Text& text) {
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
  if (const absl::Status status = LoadText(config, text, model.get()); !status.ok()) return named(status);
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
