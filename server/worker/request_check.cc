#include "server/worker/request_check.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include "devices/base/range.h"
#include "devices/base/status.h"
#include "devices/kv_cache.h"
#include "server/worker/resident_pages.h"

namespace mnemo::worker {
namespace {

absl::Status CheckIds(std::string_view field, std::span<const int32_t> ids, int vocabulary) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary) {
      return InvalidArgument("{}[{}] is {}; allowed: 0 to {}", field, i, ids[i], vocabulary - 1);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const devices::SamplingParams& sampling) {
  MNEMO_RETURN_IF_ERROR(CheckRange("temperature", sampling.temperature, 0, 5));
  if (sampling.top_k < 0) return InvalidArgument("top_k is {}; allowed: 0 and more", sampling.top_k);
  MNEMO_RETURN_IF_ERROR(CheckRange("top_p", sampling.top_p, 0, 1));
  if (sampling.top_p == 0) return InvalidArgument("top_p is 0; allowed: more than 0, up to 1");
  MNEMO_RETURN_IF_ERROR(CheckRange("min_p", sampling.min_p, 0, 1));
  MNEMO_RETURN_IF_ERROR(CheckRange("repetition_penalty", sampling.repetition_penalty, 0, 10));
  if (sampling.repetition_penalty == 0) {
    return InvalidArgument("repetition_penalty is 0; allowed: more than 0, up to 10");
  }
  MNEMO_RETURN_IF_ERROR(CheckRange("presence_penalty", sampling.presence_penalty, -2, 2));
  return CheckRange("frequency_penalty", sampling.frequency_penalty, -2, 2);
}

absl::Status CheckBias(std::span<const devices::TokenBias> bias, int vocabulary) {
  std::vector<int32_t> ids;
  ids.reserve(bias.size());
  for (const devices::TokenBias& entry : bias) {
    ids.push_back(entry.id);
    MNEMO_RETURN_IF_ERROR(CheckRange("logit_bias", entry.bias, -100, 100));
  }
  MNEMO_RETURN_IF_ERROR(CheckIds("logit_bias", ids, vocabulary));
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) return InvalidArgument("logit_bias names id {} more than once", *twice);
  return absl::OkStatus();
}

// Positions that keys and values are needed for: the last output token is not fed.
int64_t Positions(const EngineRequest& request) {
  return static_cast<int64_t>(request.prompt.size()) + std::max(request.max_tokens - 1, 0);
}

// Positions that an empty worker has room for.
int64_t Room(const Residency& residency, const RequestLimits& limits) {
  return int64_t{residency.resident() ? limits.extra_pages : limits.kv_pages} * devices::kPageTokens;
}

absl::Status CheckLength(const EngineRequest& request, const RequestLimits& limits) {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return InvalidArgument("prompt is empty; allowed: 1 token and more");
  if (prompt > limits.context_tokens) {
    return InvalidArgument("prompt has {} tokens; allowed: at most {}, the context", prompt,
                           limits.context_tokens);
  }
  if (request.max_tokens < 0 || request.max_tokens > limits.context_tokens - prompt) {
    return InvalidArgument(
        "max_tokens is {}; allowed: 0 to {}, what a prompt of {} leaves of the context of {}",
        request.max_tokens, limits.context_tokens - prompt, prompt, limits.context_tokens);
  }
  if (static_cast<int64_t>(request.generated.size()) > request.max_tokens) {
    return InvalidArgument("generated has {} tokens; allowed: at most max_tokens, {}",
                           request.generated.size(), request.max_tokens);
  }
  const int64_t positions = Positions(request);
  const Residency residency = ResidencyOf(request.attention, static_cast<int>(positions), limits);
  if (residency.resident() && residency.pages() > limits.kv_pages) {
    return InvalidArgument(
        "attention.token_budget is {}: with what the memory service keeps, the sequence still needs {} "
        "pages of the worker's pool; allowed: at most {}",
        request.attention.token_budget, residency.pages(), limits.kv_pages);
  }
  const int64_t room = Room(residency, limits);
  if (positions <= room) return absl::OkStatus();
  if (residency.resident()) {
    return InvalidArgument(
        "prompt and max_tokens need {} positions of layers that are not indexed; allowed: at most {}, "
        "memory.resident_tokens",
        positions, room);
  }
  return InvalidArgument(
      "prompt and max_tokens need a KV cache of {} positions; allowed: at most {}, the whole pool", positions,
      room);
}

}  // namespace

void LowerToPool(const RequestLimits& limits, EngineRequest* request) {
  const int64_t prompt = static_cast<int64_t>(request->prompt.size());
  const bool in_context = request->max_tokens > 0 && prompt + request->max_tokens <= limits.context_tokens;
  if (!request->lower_to_pool || !in_context) return;
  Residency residency = ResidencyOf(request->attention, static_cast<int>(Positions(*request)), limits);
  if (residency.pages() > limits.kv_pages) residency = {};  // the pool has no room for its share
  // A sequence as long as its share is not resident.
  const int64_t room = std::max(Room(residency, limits), int64_t{residency.pages()} * devices::kPageTokens);
  const int64_t most = std::max<int64_t>(1, room - prompt + 1);
  request->max_tokens = static_cast<int32_t>(std::min<int64_t>(request->max_tokens, most));
  if (std::ssize(request->generated) > request->max_tokens) request->generated.resize(request->max_tokens);
}

absl::Status CheckRequest(const EngineRequest& request, const RequestLimits& limits) {
  MNEMO_RETURN_IF_ERROR(CheckLength(request, limits));
  MNEMO_RETURN_IF_ERROR(CheckIds("prompt", request.prompt, limits.vocabulary));
  MNEMO_RETURN_IF_ERROR(CheckIds("generated", request.generated, limits.vocabulary));
  MNEMO_RETURN_IF_ERROR(CheckSampling(request.sampling));
  MNEMO_RETURN_IF_ERROR(CheckBias(request.bias, limits.vocabulary));
  MNEMO_RETURN_IF_ERROR(CheckRange("logprobs", request.logprobs, -1, devices::kMaxAlternatives));
  MNEMO_RETURN_IF_ERROR(
      CheckRange("prompt_logprobs", request.prompt_logprobs, -1, devices::kMaxAlternatives));
  const double prompt = static_cast<double>(request.prompt.size());
  MNEMO_RETURN_IF_ERROR(CheckRange("prompt_logprobs_from", request.prompt_logprobs_from, 0, prompt));
  MNEMO_RETURN_IF_ERROR(memory::CheckSettings(request.attention, limits.memory));
  return CheckRange("decode_from", request.decode_from, 0, prompt);
}

}  // namespace mnemo::worker
