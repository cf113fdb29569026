#include "server/model/chat_template.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>

#include "server/model/chat_families.h"
#include "server/model/pretokenizer.h"
#include "server/model/vocabulary.h"

namespace mnemo::model {
namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kSmollmSystem =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr std::string_view kQwenSystem = "You are a helpful assistant.";
constexpr std::array<std::string_view, 8> kFamilies = {"chatml",  "gemma", "llama2",  "llama3",
                                                       "mistral", "qwen",  "smollm2", "zephyr"};

bool HasAny(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return text.find(part) != std::string_view::npos; });
}
bool Has(std::string_view text, std::string_view part) { return HasAny(text, {part}); }

// The system message that a ChatML template puts first by itself: the text of a string constant between the
// marks.
std::string DefaultSystem(std::string_view text) {
  constexpr std::string_view kBegin = "<|im_start|>system";
  constexpr std::string_view kEnd = "<|im_end|>";
  for (size_t at = text.find(kBegin); at != std::string_view::npos; at = text.find(kBegin, at + 1)) {
    std::string_view rest = text.substr(at + kBegin.size());
    if (rest.starts_with("\n")) {
      rest.remove_prefix(1);
    } else if (rest.starts_with("\\n")) {
      rest.remove_prefix(2);
    } else {
      continue;
    }
    const std::string_view constant = rest.substr(0, rest.find(kEnd));
    if (constant.size() < rest.size() && !constant.empty() &&
        !HasAny(constant, {"'", "\"", "\\", "{", "}"})) {
      return std::string(constant);
    }
  }
  return "";
}

// A family with what the text of a template says of its variant; nothing when the template does more than we
// know.
struct Recognised {
  std::string family;
  ChatmlOptions chatml;
  Llama3Options llama3;
  GemmaOptions gemma;
  InstOptions inst;
};

std::optional<Recognised> RecogniseChatml(std::string_view text) {
  // What other models added to ChatML.
  if (HasAny(text, {"<|im_sep|>", "<|im_middle|>", "strftime", "custom_instructions", "<|tool_list_start|>",
                    "loop.previtem", "render_content", "preserve_thinking",
                    "<function=", "<function name=", "namespace(name"})) {
    return std::nullopt;
  }
  Recognised found{.family = "chatml", .chatml = {}, .llama3 = {}, .gemma = {}, .inst = {}};
  found.chatml.groups_tools = Has(text, "<tool_response>");
  found.chatml.thinks = found.chatml.groups_tools && Has(text, "enable_thinking");
  if (Has(text, "<think>") != found.chatml.thinks || Has(text, "reasoning_content") != found.chatml.thinks) {
    return std::nullopt;
  }
  found.chatml.writes_bos = Has(text, "bos_token");
  found.chatml.default_system = DefaultSystem(text);
  if (found.chatml.default_system == kSmollmSystem) {
    found.family = "smollm2";
  } else if (found.chatml.groups_tools ||
             found.chatml.default_system.starts_with("You are a helpful assistant")) {
    found.family = "qwen";
  }
  found.chatml.family = found.family;
  return found;
}

std::optional<Recognised> RecogniseInst(std::string_view text) {
  using Dialect = InstOptions::Dialect;
  Recognised found{.family = "mistral", .chatml = {}, .llama3 = {}, .gemma = {}, .inst = {}};
  Dialect& dialect = found.inst.dialect;
  if (Has(text, "<<SYS>>")) {
    found.family = "llama2";
    dialect = Dialect::kLlama2;
    if (!Has(text, "strip()") || !Has(text, "bos_token + '[INST] '")) return std::nullopt;
  } else if (HasAny(text, {"default_system_message", "[THINK]", "[SYSTEM_PROMPT]' +"}) ||
             Has(text, "strftime")) {
    return std::nullopt;
  } else if (Has(text, "[SYSTEM_PROMPT]")) {
    dialect = Dialect::kMistralV7;
  } else if (Has(text, "' [INST] '")) {
    dialect = Dialect::kMistralV1;
  } else if (HasAny(text, {"\"[INST]\"", "'[INST]'"})) {
    dialect = Dialect::kMistralTekken;
  } else if (HasAny(text, {"\"[/INST]\"", "'[/INST]'"}) && Has(text, "system_message")) {
    dialect = Dialect::kMistralV3;
  } else if (Has(text, "' [/INST]'") && Has(text, "message['content'] + eos_token")) {
    dialect = Dialect::kMistralV0;
  } else {
    return std::nullopt;
  }
  return found;
}

std::optional<Recognised> Recognise(std::string_view text) {
  Recognised found;
  if (Has(text, "<|im_start|>")) return RecogniseChatml(text);
  if (Has(text, "<|start_header_id|>")) {
    found.family = "llama3";
    found.llama3.writes_bos = Has(text, "bos_token");
    found.llama3.writes_dates = Has(text, "Cutting Knowledge Date");
    const bool has_date = Has(text, "\"Today Date: \" + date_string");
    if (found.llama3.writes_dates != has_date || HasAny(text, {"functions", "reasoning"}) != has_date) {
      return std::nullopt;
    }
    return found;
  }
  if (Has(text, "<start_of_turn>")) {
    found.family = "gemma";
    found.gemma.writes_bos = Has(text, "bos_token");
    found.gemma.takes_system = !Has(text, "System role not supported");
    return found;
  }
  if (Has(text, "[INST]")) return RecogniseInst(text);
  if (Has(text, "<|user|>") && Has(text, "<|assistant|>") && Has(text, "message['content'] + eos_token")) {
    found.family = "zephyr";
    return found;
  }
  return std::nullopt;
}

// The variant of a family that a file without (or with another family's) template is taken for, by its
// architecture and its control tokens.
Recognised DefaultVariant(const std::string& family, std::string_view architecture,
                          const VocabularyFields& fields, bool is_bpe) {
  Recognised found;
  found.family = family;
  found.chatml.family = family;
  if (family == "smollm2") found.chatml.default_system = kSmollmSystem;
  if (family == "qwen") {
    found.chatml.groups_tools = true;
    found.chatml.thinks = architecture == "qwen3";
    if (!found.chatml.thinks) found.chatml.default_system = kQwenSystem;
  }
  if (family == "mistral") {
    using Dialect = InstOptions::Dialect;
    const bool has_inst_token =
        std::find(fields.texts.begin(), fields.texts.end(), "[INST]") != fields.texts.end();
    found.inst.dialect = !has_inst_token ? Dialect::kMistralV1
                         : is_bpe        ? Dialect::kMistralTekken
                                         : Dialect::kMistralV3;
  }
  return found;
}

std::string ArchitectureFamily(std::string_view architecture, const VocabularyFields& fields, bool is_bpe) {
  const auto has_token = [&](std::string_view text) {
    return std::find(fields.texts.begin(), fields.texts.end(), text) != fields.texts.end();
  };
  if (architecture.starts_with("gemma")) return "gemma";
  if (architecture.starts_with("qwen")) return "qwen";
  if (architecture != "llama") return "";
  if (has_token("<|im_start|>")) return "chatml";
  if (has_token("<|start_header_id|>")) return "llama3";
  if (has_token("[INST]")) return "mistral";
  return is_bpe ? "" : "llama2";
}

absl::Status Unknown(const GgufFile& file, std::string_view what) {
  return Unimplemented("{}: {}; set model.chat_template in the configuration to the family that fits: {}",
                       file.path(), what, fmt::join(kFamilies, ", "));
}

std::unique_ptr<ChatTemplate> Make(const Recognised& found, const ChatTokens& tokens) {
  if (found.family == "llama3") return MakeLlama3(tokens, found.llama3);
  if (found.family == "gemma") return MakeGemma(tokens, found.gemma);
  if (found.family == "llama2" || found.family == "mistral") return MakeInst(tokens, found.inst);
  if (found.family == "zephyr") return MakeZephyr(tokens);
  return MakeChatml(tokens, found.chatml);
}

absl::StatusOr<std::string_view> StringOr(const GgufFile& file, std::string_view key,
                                          std::string_view absent) {
  if (file.Find(key) == nullptr) return absent;
  return file.GetString(key);
}

}  // namespace

std::vector<std::string> ChatTemplate::Families() { return {kFamilies.begin(), kFamilies.end()}; }

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(const GgufFile& file,
                                                                   std::string_view family_override) {
  if (!family_override.empty() &&
      std::find(kFamilies.begin(), kFamilies.end(), family_override) == kFamilies.end()) {
    return Unimplemented("model.chat_template: \"{}\" is no known family of chat templates; known are {}",
                         family_override, fmt::join(kFamilies, ", "));
  }
  MNEMO_ASSIGN_OR_RETURN(const std::string_view architecture, StringOr(file, "general.architecture", ""));
  MNEMO_ASSIGN_OR_RETURN(const std::string_view text, StringOr(file, kTemplateKey, ""));
  MNEMO_ASSIGN_OR_RETURN(const std::string_view model, StringOr(file, "tokenizer.ggml.model", ""));
  MNEMO_ASSIGN_OR_RETURN(const std::string_view pre_name, StringOr(file, "tokenizer.ggml.pre", "default"));
  const bool is_bpe = model == "gpt2";
  const std::optional<PreTokenizer> pre = FindPreTokenizer(pre_name);
  const bool adds_bos = is_bpe ? pre.has_value() && pre->begins_by_default : true;
  MNEMO_ASSIGN_OR_RETURN(const VocabularyFields fields, ReadVocabularyFields(file, adds_bos));

  ChatTokens tokens;
  if (fields.bos_id >= 0) tokens.bos = fields.texts[static_cast<size_t>(fields.bos_id)];
  if (fields.eos_id >= 0) tokens.eos = fields.texts[static_cast<size_t>(fields.eos_id)];
  tokens.encoder_adds_bos = fields.add_bos && !fields.add_eos;

  const std::optional<Recognised> found = Recognise(text);
  std::string family(family_override);
  if (family.empty() && found.has_value()) family = found->family;
  if (family.empty() && text.empty()) {
    family = ArchitectureFamily(architecture, fields, is_bpe);
    if (family.empty()) {
      return Unknown(file, fmt::format("it has no {}, and the architecture \"{}\" has no family of its own",
                                       kTemplateKey, architecture));
    }
  }
  if (family.empty()) return Unknown(file, fmt::format("its {} is of no known family", kTemplateKey));
  if (found.has_value() && found->family == family) return Make(*found, tokens);
  return Make(DefaultVariant(family, architecture, fields, is_bpe), tokens);
}

}  // namespace mnemo::model
