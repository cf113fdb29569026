// The model of a measurement, and the token ids of its prompts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/client.h"

namespace mnemo::cli {

// The model of that name, or the daemon's default when it is empty.
absl::StatusOr<v1::ListModelsResponse::Model> FindModel(client::Client* client, const std::string& name);

// Ids of ordinary text: those of common words, within the vocabulary, control tokens excluded.
absl::StatusOr<std::vector<int32_t>> OrdinaryIds(client::Client* client,
                                                 const v1::ListModelsResponse::Model& model);

}  // namespace mnemo::cli
