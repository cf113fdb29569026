#include "server/model/chat_template.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "server/model/pretokenizer.h"
#include "server/model/vocabulary.h"

namespace mnemo::model {

// The files of server/model/chat_families, by name.
extern const std::span<const std::pair<std::string_view, std::string_view>> kFamilyTemplates;

namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kToolUseKey = "tokenizer.chat_template.tool_use";
constexpr std::array<std::string_view, 8> kFamilies = {"chatml",  "gemma", "llama2",  "llama3",
                                                       "mistral", "qwen",  "smollm2", "zephyr"};
// Larger than any template, smaller than the files that a mistaken path may name.
constexpr size_t kMaxTemplateBytes = 1 << 20;

// The metadata key of a token, and its name in transformers' templates. Tokens with a default are not among
// them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kSpecialTokens = {
    {{"tokenizer.ggml.padding_token_id", "pad_token"},
     {"tokenizer.ggml.seperator_token_id", "sep_token"},  // spelled this way in the format
     {"tokenizer.ggml.cls_token_id", "cls_token"},
     {"tokenizer.ggml.mask_token_id", "mask_token"}}};

absl::StatusOr<std::string_view> StringOr(const GgufFile& file, std::string_view key,
                                          std::string_view absent) {
  if (file.Find(key) == nullptr) return absent;
  return file.GetString(key);
}

struct Vocabulary {
  std::string_view architecture;
  VocabularyFields fields;
  bool is_bpe = false;

  bool Has(std::string_view text) const {
    return std::find(fields.texts.begin(), fields.texts.end(), text) != fields.texts.end();
  }
};

absl::StatusOr<Vocabulary> ReadVocabulary(const GgufFile& file) {
  Vocabulary vocabulary;
  MNEMO_ASSIGN_OR_RETURN(vocabulary.architecture, StringOr(file, "general.architecture", ""));
  MNEMO_ASSIGN_OR_RETURN(const std::string_view model, StringOr(file, "tokenizer.ggml.model", ""));
  MNEMO_ASSIGN_OR_RETURN(const std::string_view pre_name, StringOr(file, "tokenizer.ggml.pre", "default"));
  vocabulary.is_bpe = model == "gpt2";
  const std::optional<PreTokenizer> pre = FindPreTokenizer(pre_name);
  const bool adds_bos = vocabulary.is_bpe ? pre.has_value() && pre->begins_by_default : true;
  MNEMO_ASSIGN_OR_RETURN(vocabulary.fields, ReadVocabularyFields(file, adds_bos));
  return vocabulary;
}

// Returns the family of a file without a template; empty when its architecture has none.
std::string_view ArchitectureFamily(const Vocabulary& vocabulary) {
  if (vocabulary.architecture.starts_with("gemma")) return "gemma";
  if (vocabulary.architecture.starts_with("qwen")) return "qwen";
  if (vocabulary.architecture != "llama") return "";
  if (vocabulary.Has("<|im_start|>")) return "chatml";
  if (vocabulary.Has("<|start_header_id|>")) return "llama3";
  if (vocabulary.Has("[INST]")) return "mistral";
  return vocabulary.is_bpe ? "" : "llama2";
}

std::string_view FamilyText(std::string_view family, const Vocabulary& vocabulary) {
  std::string_view name = family;
  if (family == "qwen") name = vocabulary.architecture == "qwen3" ? "qwen3" : "qwen2";
  if (family == "mistral") {
    name = !vocabulary.Has("[INST]") ? "mistral_v1" : vocabulary.is_bpe ? "mistral_tekken" : "mistral_v3";
  }
  const auto found = std::find_if(kFamilyTemplates.begin(), kFamilyTemplates.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  MNEMO_CHECK(found != kFamilyTemplates.end());
  return found->second;
}

bool IsFamily(std::string_view name) {
  return std::find(kFamilies.begin(), kFamilies.end(), name) != kFamilies.end();
}

absl::StatusOr<std::string> ReadTemplateFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  if (stream) {
    text.resize(kMaxTemplateBytes + 1);
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(stream.gcount()));
  }
  if (text.empty()) {
    return InvalidArgument(
        "model.chat_template: \"{}\" is neither a family of chat templates nor a file that can be read; "
        "families "
        "are {}",
        path, fmt::join(kFamilies, ", "));
  }
  if (text.size() > kMaxTemplateBytes) {
    return InvalidArgument("model.chat_template: {} is larger than a template may be, {} bytes", path,
                           kMaxTemplateBytes);
  }
  return text;
}

absl::Status ReadTexts(const GgufFile& file, std::string_view choice, const Vocabulary& vocabulary,
                       ChatTemplate* found) {
  MNEMO_ASSIGN_OR_RETURN(const std::string_view own, StringOr(file, kTemplateKey, ""));
  std::string_view family = choice;
  if (choice.empty() && !own.empty()) {
    found->origin = fmt::format("{} of {}", kTemplateKey, file.path());
    found->text = own;
    MNEMO_ASSIGN_OR_RETURN(found->tool_use_text, StringOr(file, kToolUseKey, ""));
    return absl::OkStatus();
  }
  if (choice.empty()) {
    family = ArchitectureFamily(vocabulary);
    if (family.empty()) {
      return Unimplemented(
          "{}: it has no {}, and the architecture \"{}\" has no family of its own; set model.chat_template "
          "in the "
          "configuration to a file with a template, or to the family that fits: {}",
          file.path(), kTemplateKey, vocabulary.architecture, fmt::join(kFamilies, ", "));
    }
  } else if (!IsFamily(choice)) {
    found->origin = fmt::format("model.chat_template, {}", choice);
    MNEMO_ASSIGN_OR_RETURN(found->text, ReadTemplateFile(std::string(choice)));
    return absl::OkStatus();
  }
  found->origin = fmt::format("the family {}", family);
  found->text = FamilyText(family, vocabulary);
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> ChatTemplate::Families() { return {kFamilies.begin(), kFamilies.end()}; }

absl::StatusOr<ChatTemplate> ChatTemplate::Read(const GgufFile& file, std::string_view choice) {
  MNEMO_ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(file));
  ChatTemplate found;
  MNEMO_RETURN_IF_ERROR(ReadTexts(file, choice, vocabulary, &found));
  const VocabularyFields& fields = vocabulary.fields;
  const auto add_token = [&](std::string_view name, int64_t id) {
    if (id < 0 || id >= static_cast<int64_t>(fields.texts.size())) return;  // some writers' value for "none"
    found.special_tokens.emplace(name, fields.texts[static_cast<size_t>(id)]);
  };
  add_token("bos_token", fields.bos_id);
  add_token("eos_token", fields.eos_id);
  add_token("unk_token", fields.unknown_id);
  for (const auto& [key, name] : kSpecialTokens) {
    if (file.Find(key) == nullptr) continue;
    MNEMO_ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key));
    add_token(name, id);
  }
  found.encoder_adds_bos = fields.add_bos && !fields.add_eos;
  return found;
}

void LeaveBosToEncoder(const ChatTemplate& chat_template, RenderedChat* chat) {
  const auto bos = chat_template.special_tokens.find("bos_token");
  if (!chat_template.encoder_adds_bos || bos == chat_template.special_tokens.end() || bos->second.empty())
    return;
  const size_t size = bos->second.size();
  if (!chat->text.starts_with(bos->second)) return;
  if (!chat->literal.empty() && chat->literal.front().begin < size) return;
  chat->text.erase(0, size);
  for (ByteRange& range : chat->literal) {
    range.begin -= size;
    range.end -= size;
  }
  chat->add_special = true;
}

}  // namespace mnemo::model
