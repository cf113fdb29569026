// What the front end knows of the model it serves: text and bounds, no weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"
#include "server/model/chat_template.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer.h"

namespace mnemo::frontend {

// Immutable and thread-safe once loaded.
struct ServedModel {
  std::unique_ptr<const model::GgufFile> file;
  std::string name;
  model::ModelConfig config;
  std::unique_ptr<const model::Tokenizer> tokenizer;
  // An unknown template is no reason not to serve prompts: the error goes to those who send a chat.
  absl::StatusOr<std::unique_ptr<const model::ChatTemplate>> chat = absl::UnknownError("not loaded");
  std::vector<int32_t> end_ids;
  int context_tokens = 0;     // longest sequence that is offered
  std::string context_bound;  // why that is less than the model's, as a part of a sentence; else empty
  size_t longest_piece_bytes = 1;

  // "the context of 4096 tokens", with the reason where it is less than the model's.
  std::string ContextText() const;
  int vocabulary() const { return config.vocabulary; }
  // Empty for an id of the embedding table that has no entry in the vocabulary (padding rows).
  std::string_view Piece(int32_t id) const {
    return id >= 0 && id < tokenizer->size() ? tokenizer->Piece(id) : std::string_view();
  }
};

// Errors name the file or the configuration key.
absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const config::Config::Model& config);

}  // namespace mnemo::frontend
