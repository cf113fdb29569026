// The model that a measurement runs on, and what its prompts are made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/client.h"

namespace mnemo::cli {

// The one of that name, or the daemon's default when empty.
absl::StatusOr<v1::ListModelsResponse::Model> FindModel(client::Client* client, const std::string& name);

// Ids of ordinary text: those of common words, within the vocabulary, control tokens excluded.
absl::StatusOr<std::vector<int32_t>> OrdinaryIds(client::Client* client,
                                                 const v1::ListModelsResponse::Model& model);

}  // namespace mnemo::cli
