// The served model as the front end knows it: text and bounds, no weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "devices/base/status.h"
#include "server/frontend/chat/chat_renderer.h"
#include "server/model/gguf.h"
#include "server/model/model_config.h"
#include "server/model/tokenizer.h"

namespace mnemo::frontend {

// Immutable and thread-safe once loaded, except for the process that renders chats.
struct ServedModel {
  std::unique_ptr<const model::GgufFile> file;
  std::string name;
  model::ModelConfig config;
  std::unique_ptr<const model::Tokenizer> tokenizer;
  // An unknown template does not stop the server: prompts work, and each chat gets this error.
  absl::StatusOr<std::unique_ptr<chat::ChatRenderer>> chat = absl::UnknownError("not loaded");
  std::vector<int32_t> end_ids;
  // The longest sequence that is offered, in tokens.
  int context_tokens = 0;
  // The reason why that is less than the model's context, as a part of a sentence; else empty.
  std::string context_bound;
  // The longest text of one token.
  size_t longest_piece_bytes = 1;

  // "the context of 4096 tokens", with the reason where it is less than the model's.
  std::string ContextText() const;
  // OK, or the error that every chat gets. Blocks until the renderer has started once.
  absl::Status ChatStatus() const;
  int vocabulary() const { return config.vocabulary; }
  // Empty for an id of the embedding table that has no entry in the vocabulary (padding rows).
  std::string_view Piece(int32_t id) const {
    return id >= 0 && id < tokenizer->size() ? tokenizer->Piece(id) : std::string_view();
  }
};

// Reads the file's metadata and its tokenizer, and starts the chat renderer. Blocks. Errors name the file or
// the configuration key.
absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const config::Config::Model& config,
                                                             const config::Config::Text& text = {});

}  // namespace mnemo::frontend
