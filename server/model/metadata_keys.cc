#include "server/model/metadata_keys.h"

#include <algorithm>
#include <array>
#include <type_traits>
#include <variant>

namespace mnemo::model {
namespace {

constexpr std::string_view kDecides = "and could decide a number";

bool Lists(std::string_view architectures, std::string_view architecture) {
  if (architectures.empty()) return true;
  while (!architectures.empty()) {
    const size_t comma = std::min(architectures.find(','), architectures.size());
    if (architectures.substr(0, comma) == architecture) return true;
    architectures.remove_prefix(std::min(comma + 1, architectures.size()));
  }
  return false;
}

bool Matches(const MetadataKey& entry, std::string_view key, std::string_view architecture) {
  std::string_view pattern = entry.key;
  if (pattern.starts_with('.')) {
    if (!key.starts_with(architecture) || !Lists(entry.architectures, architecture)) return false;
    key.remove_prefix(architecture.size());
  }
  if (!pattern.ends_with('*')) return key == pattern;
  pattern.remove_suffix(1);
  return key.starts_with(pattern);
}

std::string Printable(std::string_view text) {
  constexpr size_t kMostBytes = 64;
  std::string printable(text.substr(0, kMostBytes));
  for (char& c : printable) {
    if (c < 0x20 || c > 0x7e) c = '_';
  }
  return printable + (text.size() > kMostBytes ? "..." : "");
}

std::string Show(const GgufValue& value) {
  return std::visit(
      []<typename T>(const T& held) -> std::string {
        if constexpr (std::is_same_v<T, std::string_view>) {
          return fmt::format("'{}'", Printable(held));
        } else if constexpr (std::is_arithmetic_v<T>) {
          return fmt::format("{}", held);
        } else {
          return fmt::format("an array of {}", held.size());
        }
      },
      value);
}

// Returns whether the value is 0, false, an empty text, or an array of such values.
bool IsNothing(const GgufValue& value) {
  return std::visit(
      []<typename T>(const T& held) {
        if constexpr (std::is_same_v<T, std::string_view>) {
          return held.empty();
        } else if constexpr (std::is_arithmetic_v<T>) {
          return held == T{};
        } else if constexpr (std::is_same_v<T, std::vector<std::string_view>>) {
          return held.empty();
        } else {
          return std::all_of(held.begin(), held.end(), [](auto element) { return element == 0; });
        }
      },
      value);
}

bool IsNeutral(const MetadataKey& entry, const GgufValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    return text->empty() || *text == entry.neutral_text;
  }
  const bool nothing_is_neutral = entry.min == 0 || entry.max == 0;
  return std::visit(
      [&]<typename T>(const T& held) {
        if constexpr (std::is_arithmetic_v<T>) {
          return static_cast<double>(held) == entry.min || static_cast<double>(held) == entry.max;
        } else {
          return nothing_is_neutral && IsNothing(value);
        }
      },
      value);
}

std::string NeutralValues(const MetadataKey& entry) {
  if (!entry.neutral_text.empty()) return fmt::format("'{}'", entry.neutral_text);
  if (entry.key.ends_with('*')) return "0, false or nothing";
  if (entry.type == "bool") return entry.min == 0 ? "false" : "true";
  if (entry.type.starts_with("array")) return "an empty one";
  if (entry.min == entry.max) return fmt::format("{}", entry.min);
  return fmt::format("{} or {}", entry.min, entry.max);
}

absl::Status CheckNeutral(const GgufFile& file, const std::string& key, const GgufValue& value,
                          std::string_view architecture) {
  const MetadataKey* entry = FindMetadataKey(key, architecture);
  if (entry == nullptr || entry->use != KeyUse::kNeutral || IsNeutral(*entry, value)) return absl::OkStatus();
  return Unimplemented("{}: key '{}' is {}, {}; only {}, or no such key, is supported", file.path(),
                       Printable(key), Show(value), kDecides, NeutralValues(*entry));
}

// Warns of missing vocabulary keys whose default may be wrong.
void WarnOfAbsentText(const GgufFile& file, std::vector<std::string>& warnings) {
  const absl::StatusOr<std::string_view> model = file.GetString("tokenizer.ggml.model");
  if (!model.ok()) return;
  const auto warn_if_absent = [&](std::string_view key, std::string_view consequence) {
    if (file.Find(key) == nullptr)
      warnings.push_back(fmt::format("key '{}' is absent: {}", key, consequence));
  };
  constexpr std::string_view kPreKey = "tokenizer.ggml.pre";
  constexpr std::string_view kConsequence =
      "text is cut as GPT-2 does, and the model may know it cut otherwise";
  if (*model == "gpt2") {
    warn_if_absent(kPreKey, kConsequence);
    if (const auto pre = file.GetString(kPreKey); pre.ok() && *pre == "default") {
      warnings.push_back(fmt::format("key '{}' is 'default': {}", kPreKey, kConsequence));
    }
  }
  warn_if_absent(
      "tokenizer.ggml.eos_token_id",
      "the default holds if it is a control token, else answers end with the known end tokens alone");
}

}  // namespace

const MetadataKey* FindMetadataKey(std::string_view key, std::string_view architecture) {
  for (const MetadataKey& entry : MetadataKeys()) {
    if (Matches(entry, key, architecture)) return &entry;
  }
  return nullptr;
}

absl::Status CheckModelKeys(const GgufFile& file, std::string_view architecture) {
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("tokenizer.")) continue;
    MNEMO_RETURN_IF_ERROR(CheckNeutral(file, key, value, architecture));
  }
  return absl::OkStatus();
}

absl::Status CheckTokenizerKeys(const GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("tokenizer.")) continue;
    MNEMO_RETURN_IF_ERROR(CheckNeutral(file, key, value, ""));
  }
  return absl::OkStatus();
}

std::vector<std::string> MetadataWarnings(const GgufFile& file, std::string_view architecture) {
  std::vector<std::string> warnings;
  const GgufTensor* table = file.FindTensor("token_embd.weight");
  const int64_t rows = table != nullptr && table->dims.size() > 1 ? table->dims[1] : 0;
  for (const auto& [key, value] : file.metadata()) {
    const MetadataKey* entry = FindMetadataKey(key, architecture);
    if (entry == nullptr || entry->use != KeyUse::kWarned || IsNeutral(*entry, value)) continue;
    if (entry->key == ".vocab_size") {
      const auto* count = std::get_if<uint64_t>(&value);
      if (count != nullptr && static_cast<int64_t>(*count) == rows) continue;
      warnings.push_back(fmt::format("key '{}' is {} and not used: the embedding table has {} rows",
                                     Printable(key), Show(value), rows));
      continue;
    }
    warnings.push_back(fmt::format("key '{}' is {} and not used", Printable(key), Show(value)));
  }
  WarnOfAbsentText(file, warnings);
  return warnings;
}

}  // namespace mnemo::model
