#include "server/memory/methods/method.h"

#include <algorithm>
#include <cctype>

namespace mnemo::memory::methods {
namespace {

constexpr std::string_view kDenseName = "dense";

std::vector<const Method*>& Table() {
#define MNEMO_METHOD_ADDRESS(number, name) &k##name,
  static std::vector<const Method*> table = {MNEMO_MEMORY_METHODS(MNEMO_METHOD_ADDRESS)};
#undef MNEMO_METHOD_ADDRESS
  return table;
}

}  // namespace

std::span<const Method* const> Methods() { return Table(); }

const Method* FindMethod(AttentionSettings::Method id) {
  const auto found = std::ranges::find(Table(), id, &Method::id);
  return found == Table().end() ? nullptr : *found;
}

std::string_view MethodName(AttentionSettings::Method id) {
  if (id == AttentionSettings::Method::kDense) return kDenseName;
  const Method* const method = FindMethod(id);
  return method == nullptr ? std::string_view() : method->name;
}

std::string ProtocolName(AttentionSettings::Method id) {
  std::string name(MethodName(id));
  if (name.empty()) return name;
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::toupper(c); });
  return "ATTENTION_METHOD_" + name;
}

std::optional<AttentionSettings::Method> MethodNamed(std::string_view name) {
  if (name == kDenseName) return AttentionSettings::Method::kDense;
  const auto found = std::ranges::find(Table(), name, &Method::name);
  if (found == Table().end()) return std::nullopt;
  return (*found)->id;
}

std::vector<std::string_view> NamesWhere(bool (*trait)(const Method& method)) {
  std::vector<const Method*> chosen;
  std::ranges::copy_if(Table(), std::back_inserter(chosen), [trait](const Method* m) { return trait(*m); });
  std::ranges::sort(chosen, {}, &Method::id);
  std::vector<std::string_view> names;
  for (const Method* method : chosen) names.push_back(method->name);
  return names;
}

std::vector<std::string_view> AllNames() {
  std::vector<std::string_view> names = NamesWhere([](const Method&) { return true; });
  names.insert(names.begin(), kDenseName);
  return names;
}

std::vector<std::string_view> RunnableNames() {
  std::vector<std::string_view> names =
      NamesWhere([](const Method& method) { return method.weights.empty(); });
  names.insert(names.begin(), kDenseName);
  return names;
}

std::string Joined(const std::vector<std::string_view>& names, std::string_view word) {
  std::string joined;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) joined += i + 1 < names.size() ? ", " : fmt::format(" {} ", word);
    joined += names[i];
  }
  return joined;
}

AddedMethod::AddedMethod(const Method* method) : method_(method) {
  MNEMO_CHECK(FindMethod(method->id) == nullptr && !MethodNamed(method->name));
  Table().push_back(method);
}

AddedMethod::~AddedMethod() { std::erase(Table(), method_); }

}  // namespace mnemo::memory::methods
