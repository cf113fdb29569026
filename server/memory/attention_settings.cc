#include "server/memory/attention_settings.h"

#include <array>
#include <utility>

namespace mnemo::memory {
namespace {

using Method = AttentionSettings::Method;
constexpr std::array<std::pair<Method, std::string_view>, 5> kNames = {{{Method::kDense, "dense"},
                                                                        {Method::kPageBound, "page_bound"},
                                                                        {Method::kBlockMean, "block_mean"},
                                                                        {Method::kTokenTopk, "token_topk"},
                                                                        {Method::kCascade, "cascade"}}};

}  // namespace

std::string_view MethodName(Method method) {
  for (const auto& [known, name] : kNames) {
    if (known == method) return name;
  }
  return {};
}

std::optional<Method> MethodNamed(std::string_view name) {
  for (const auto& [method, known] : kNames) {
    if (known == name) return method;
  }
  return std::nullopt;
}

}  // namespace mnemo::memory
