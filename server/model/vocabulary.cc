#include "server/model/vocabulary.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "server/model/token_roles.h"

namespace mnemo::model {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
constexpr std::string_view kBosKey = "tokenizer.ggml.bos_token_id";
constexpr std::string_view kEosKey = "tokenizer.ggml.eos_token_id";
constexpr std::string_view kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr std::string_view kAddEosKey = "tokenizer.ggml.add_eos_token";

absl::StatusOr<int32_t> TokenIdOr(const GgufFile& file, std::string_view key, int32_t absent, size_t size) {
  if (file.Find(key) == nullptr) return absent;
  MNEMO_ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key));
  // Some writers use the largest number for "none".
  if (id == std::numeric_limits<uint32_t>::max()) return absent;
  if (id < 0 || id >= static_cast<int64_t>(size)) {
    return InvalidArgument("{}: {} is {}, outside the vocabulary, [0, {})", file.path(), key, id, size);
  }
  return static_cast<int32_t>(id);
}

// llama.cpp's ids for special tokens that the file does not name; -1: none.
struct DefaultIds {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t unknown = -1;
};

// These ids suit the families they come from. Another file may have any token at such an id, so only a
// special token counts.
DefaultIds DefaultIdsOf(bool is_sentencepiece, const VocabularyFields& fields) {
  constexpr std::array<std::string_view, 4> kKnown = {"<unk>", "<s>", "</s>", "<|endoftext|>"};
  const auto special = [&fields, &kKnown](size_t id, TokenKind kind) {
    if (id >= fields.texts.size()) return -1;
    const bool known = std::find(kKnown.begin(), kKnown.end(), fields.texts[id]) != kKnown.end();
    const bool typed = !fields.kinds.empty() && fields.kinds[id] == kind;
    return known || typed ? static_cast<int32_t>(id) : -1;
  };
  if (!is_sentencepiece) {
    return {special(11, TokenKind::kControl), special(11, TokenKind::kControl), -1};
  }
  return {special(1, TokenKind::kControl), special(2, TokenKind::kControl), special(0, TokenKind::kUnknown)};
}

// Rejects a token that the file asks to add to texts but does not have.
absl::Status CheckAdded(const GgufFile& file, std::string_view add_key, std::string_view id_key, int32_t id) {
  MNEMO_ASSIGN_OR_RETURN(const bool adds, BoolOr(file, add_key, false));
  if (!adds || id >= 0) return absl::OkStatus();
  return InvalidArgument("{}: {} is true and {} is absent", file.path(), add_key, id_key);
}

// Leaves the kinds empty when the file has none.
absl::Status ReadKinds(const GgufFile& file, VocabularyFields* fields) {
  if (file.Find(kTypesKey) == nullptr) return absl::OkStatus();
  MNEMO_ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.GetInts(kTypesKey));
  if (types.size() != fields->texts.size()) {
    return InvalidArgument("{}: {} has {} entries and {} has {}; they must be as many", file.path(),
                           kTypesKey, types.size(), kTokensKey, fields->texts.size());
  }
  fields->kinds.resize(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > 6) {
      return InvalidArgument("{}: {}[{}] is {}, allowed are 0 to 6", file.path(), kTypesKey, i, types[i]);
    }
    // 0 is "undefined" in the format; such a token takes no part in encoding.
    fields->kinds[i] = types[i] == 0 ? TokenKind::kUnused : static_cast<TokenKind>(types[i]);
  }
  return absl::OkStatus();
}

// Returns the file's own templates, concatenated: a file may have several, by name.
std::string ChatTemplates(const GgufFile& file) {
  constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
  std::string all;
  const auto append = [&](const std::string& key) {
    const absl::StatusOr<std::string_view> text = file.GetString(key);
    if (text.ok()) all.append(*text).append("\n");
  };
  append(std::string(kTemplateKey));
  const auto names = file.GetStrings("tokenizer.chat_templates");
  if (!names.ok()) return all;
  for (const std::string_view name : *names) append(fmt::format("{}.{}", kTemplateKey, name));
  return all;
}

}  // namespace

absl::StatusOr<bool> BoolOr(const GgufFile& file, std::string_view key, bool absent) {
  if (file.Find(key) == nullptr) return absent;
  return file.GetBool(key);
}

absl::StatusOr<VocabularyFields> ReadVocabularyFields(const GgufFile& file, bool add_bos_default,
                                                      std::string_view chat_template) {
  VocabularyFields fields;
  MNEMO_ASSIGN_OR_RETURN(fields.texts, file.GetStrings(kTokensKey));
  const size_t size = fields.texts.size();
  if (size == 0 || size > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument("{}: {} has {} entries, allowed are 1 to {}", file.path(), kTokensKey, size,
                           std::numeric_limits<int32_t>::max());
  }
  MNEMO_RETURN_IF_ERROR(ReadKinds(file, &fields));
  const auto tokenizer_model = file.GetString("tokenizer.ggml.model");
  const bool is_sentencepiece = tokenizer_model.ok() && *tokenizer_model == "llama";
  const DefaultIds defaults = DefaultIdsOf(is_sentencepiece, fields);
  MNEMO_ASSIGN_OR_RETURN(fields.bos_id, TokenIdOr(file, kBosKey, defaults.bos, size));
  MNEMO_ASSIGN_OR_RETURN(fields.eos_id, TokenIdOr(file, kEosKey, defaults.eos, size));
  MNEMO_ASSIGN_OR_RETURN(fields.unknown_id,
                         TokenIdOr(file, "tokenizer.ggml.unknown_token_id", defaults.unknown, size));
  MNEMO_ASSIGN_OR_RETURN(const int32_t padding_id,
                         TokenIdOr(file, "tokenizer.ggml.padding_token_id", -1, size));
  MNEMO_ASSIGN_OR_RETURN(const int32_t eot_id, TokenIdOr(file, "tokenizer.ggml.eot_token_id", -1, size));
  MNEMO_ASSIGN_OR_RETURN(const int32_t eom_id, TokenIdOr(file, "tokenizer.ggml.eom_token_id", -1, size));
  MNEMO_RETURN_IF_ERROR(CheckAdded(file, kAddBosKey, kBosKey, fields.bos_id));
  MNEMO_RETURN_IF_ERROR(CheckAdded(file, kAddEosKey, kEosKey, fields.eos_id));
  MNEMO_ASSIGN_OR_RETURN(fields.add_bos, BoolOr(file, kAddBosKey, add_bos_default));
  MNEMO_ASSIGN_OR_RETURN(fields.add_eos, BoolOr(file, kAddEosKey, false));
  fields.add_bos = fields.add_bos && fields.bos_id >= 0;
  fields.add_eos = fields.add_eos && fields.eos_id >= 0;

  std::string templates = ChatTemplates(file);
  templates.append(chat_template);
  const auto merges = file.GetStrings("tokenizer.ggml.merges");
  const std::array named = {fields.bos_id, fields.unknown_id, padding_id};
  const std::array ends = {fields.eos_id, eot_id, eom_id};
  TokenRoles roles =
      DecideTokenRoles({.texts = fields.texts,
                        .kinds = fields.kinds,
                        .merges = merges.ok() ? std::span(*merges) : std::span<const std::string_view>(),
                        .templates = templates,
                        .named_ids = named,
                        .end_ids = ends,
                        .is_sentencepiece = is_sentencepiece});
  fields.kinds = std::move(roles.kinds);
  fields.end_ids = std::move(roles.end_ids);
  fields.notes = std::move(roles.notes);
  return fields;
}

uint32_t TokenMatcher::Child(uint32_t node, uint8_t byte) const {
  uint32_t child = nodes_[node].child;
  while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

void TokenMatcher::Add(std::string_view text, int32_t id, bool is_control) {
  if (text.empty()) return;
  const auto new_node = [this](uint8_t byte, uint32_t sibling) {
    nodes_.push_back({.child = 0, .sibling = sibling, .id = -1, .byte = byte, .is_control = false});
    return static_cast<uint32_t>(nodes_.size() - 1);
  };
  uint32_t& root = roots_[static_cast<uint8_t>(text[0])];
  if (root == 0) root = new_node(static_cast<uint8_t>(text[0]), 0);
  uint32_t node = root;
  for (const char c : text.substr(1)) {
    uint32_t child = Child(node, static_cast<uint8_t>(c));
    if (child == 0) {
      child = new_node(static_cast<uint8_t>(c), nodes_[node].child);
      nodes_[node].child = child;
    }
    node = child;
  }
  nodes_[node].id = id;
  nodes_[node].is_control = is_control;
}

TokenMatcher::Match TokenMatcher::Search::MatchAt(size_t begin) const {
  Match match;
  uint32_t node = matcher_.roots_[static_cast<uint8_t>(text_[begin])];
  for (size_t end = begin + 1; node != 0; ++end) {
    const Node& found = matcher_.nodes_[node];
    // literal_ begins with the first range that ends after `begin`: no other range can touch the match
    // earlier.
    const bool barred =
        found.is_control && (!parse_special_ || (!literal_.empty() && literal_.front().begin < end));
    if (found.id >= 0 && !barred) match = {begin, end, found.id};
    if (end == text_.size()) break;
    node = matcher_.Child(node, static_cast<uint8_t>(text_[end]));
  }
  return match;
}

TokenMatcher::Match TokenMatcher::Search::Next() {
  for (; at_ < text_.size(); ++at_) {
    if (matcher_.roots_[static_cast<uint8_t>(text_[at_])] == 0) continue;
    while (!literal_.empty() &&
           (literal_.front().end <= at_ || literal_.front().begin >= literal_.front().end)) {
      literal_ = literal_.subspan(1);
    }
    const Match match = MatchAt(at_);
    if (match.id >= 0) {
      at_ = match.end;
      return match;
    }
  }
  return {text_.size(), text_.size(), -1};
}

VocabularyTokenizer::VocabularyTokenizer(const VocabularyFields& fields)
    : kinds_(fields.kinds),
      add_bos_(fields.add_bos),
      add_eos_(fields.add_eos),
      bos_id_(fields.bos_id),
      eos_id_(fields.eos_id),
      end_ids_(fields.end_ids),
      notes_(fields.notes) {}

std::string_view VocabularyTokenizer::Piece(int32_t id) const {
  MNEMO_CHECK(id >= 0 && id < size());
  return pieces_[static_cast<size_t>(id)];
}

TokenKind VocabularyTokenizer::Kind(int32_t id) const {
  MNEMO_CHECK(id >= 0 && id < size());
  return kinds_[static_cast<size_t>(id)];
}

std::vector<int32_t> VocabularyTokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(std::min(text.size() / 3, options.max_ids) + 8);
  if (options.add_special && add_bos_) ids.push_back(bos_id_);
  TokenMatcher::Search search(matcher_, text, options.parse_special, options.literal);
  for (size_t at = 0; at < text.size() && ids.size() <= options.max_ids;) {
    const TokenMatcher::Match match = search.Next();
    if (match.begin > at) EncodeFragment(text.substr(at, match.begin - at), at == 0, options, &ids);
    if (match.id >= 0) ids.push_back(match.id);
    at = match.end;
  }
  if (options.add_special && add_eos_) ids.push_back(eos_id_);
  return ids;
}

}  // namespace mnemo::model
