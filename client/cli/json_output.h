// The JSON that `mnemo` prints. Times are seconds, in fields that end in _seconds.
#pragma once

#include <string>

#include "client/client.h"

namespace mnemo::cli {

struct CompletionJsonOptions {
  bool logprobs = false;         // adds "logprobs", one entry a generated token
  bool prompt_logprobs = false;  // adds "prompt_logprobs"
  int indent = -1;               // spaces a level; -1 = one line
};
// One object: text, token_ids, finish_reason, stop_matched, usage, timing, request_id, model, seed, replays,
// and energy, memory_steps and sources where the server sent them. Without a newline at the end.
std::string CompletionJson(const client::Completion& completion, const CompletionJsonOptions& options);
std::string ModelsJson(const v1::ListModelsResponse& models);
std::string StatusJson(const v1::StatusResponse& status);
std::string EnergyJson(const v1::EnergyResponse& energy);

double Seconds(const google::protobuf::Duration& duration);
// "starting", "ready", "draining", "down", "unspecified".
const char* StateName(v1::StatusResponse::State state);

}  // namespace mnemo::cli
