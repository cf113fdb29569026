// Validation: from a public request to a worker's Submit and the settings of its text. Pure: drawn and
// configured values are arguments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "devices/base/status.h"
#include "mnemo/internal/worker.pb.h"
#include "mnemo/v1/generation.pb.h"
#include "server/frontend/attention_check.h"
#include "server/frontend/served_model.h"

namespace mnemo::frontend {

inline constexpr int kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxLogprobs = 20;
inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr size_t kMaxSessionIdBytes = 64;

// Seed and request id for a request without its own.
struct Drawn {
  uint64_t seed = 0;
  std::string request_id;
};

struct TextSettings {
  bool include_special_tokens = false;
  std::vector<std::string> stop;
  // Ascending, without duplicates.
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
};

// One generation, as a worker gets it.
struct Submission {
  // Complete except for id, attempt, generated and time_left_us, which the dispatcher sets.
  internal::v1::Submit submit;
  TextSettings text;
};

// `max_tokens_limit`: limits.max_tokens; 0 = none. INVALID_ARGUMENT names field and bound, UNIMPLEMENTED a
// field whose feature this build lacks, NOT_FOUND an unknown model. Blocks while the prompt is tokenized, and
// a chat rendered.
absl::StatusOr<Submission> Validate(const v1::GenerateRequest& request, const ServedModel& model,
                                    const AttentionServing& attention, int max_tokens_limit,
                                    const Drawn& drawn);

// For a prompt that was changed after Validate. Lowers max_tokens to what the context leaves where the client
// named none; INTERNAL for an empty prompt, INVALID_ARGUMENT when prompt and max_tokens exceed the context.
absl::Status FitToContext(const ServedModel& model, internal::v1::Submit* submit);

// Bytes that Validate goes over, a measure of its time. Many short messages of a chat take as long as one
// long message.
size_t TextBytes(const v1::Chat& chat);
size_t TextBytes(const v1::GenerateRequest& request);

absl::Status CheckModelName(const std::string& name, const ServedModel& model);
absl::Status CheckSessionId(const std::string& session_id);
// `max_ids`: a longer result is cut, to more ids than this.
absl::StatusOr<std::vector<int32_t>> EncodeChat(const v1::Chat& chat, const ServedModel& model,
                                                size_t max_ids = SIZE_MAX);
absl::StatusOr<std::vector<int32_t>> EncodeForTokenize(const v1::TokenizeRequest& request,
                                                       const ServedModel& model, size_t max_ids = SIZE_MAX);
// Names of the optional request fields that this server supports, for ListModels.
std::vector<std::string> Features(const ServedModel& model, bool has_sparse_attention);

}  // namespace mnemo::frontend
