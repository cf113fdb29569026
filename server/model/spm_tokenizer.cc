#include "server/model/spm_tokenizer.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <cmath>

#include "server/model/token_roles.h"
#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
// U+2581, which stands for a blank.
constexpr std::string_view kBlankMark = "\xE2\x96\x81";

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

// Appends `text` with U+2581 replaced by blanks.
void AppendUnmarked(std::string_view text, std::string* out) {
  for (size_t at = 0; at < text.size();) {
    const size_t mark = std::min(text.find(kBlankMark, at), text.size());
    out->append(text.substr(at, mark - at));
    if (mark == text.size()) return;
    out->push_back(' ');
    at = mark + kBlankMark.size();
  }
}

bool IsMergeable(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined || kind == TokenKind::kUnused;
}

}  // namespace

// Output of the ids of one fragment.
struct SpmTokenizer::Output {
  std::vector<int32_t>* ids;
  const EncodeOptions* options;
  bool is_full() const { return ids->size() > options->max_ids; }
  // ids->size() after the last unknown token: a run of unknown characters gives one token.
  size_t unknown_end = 0;
  MergeScratch scratch;
  // The latest split of an unused token's text: bytes of its left part.
  absl::flat_hash_map<absl::string_view, uint32_t> splits;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> SpmTokenizer::Create(const GgufFile& file,
                                                                std::string_view chat_template) {
  MNEMO_ASSIGN_OR_RETURN(const VocabularyFields fields, ReadVocabularyFields(file, true, chat_template));
  std::unique_ptr<SpmTokenizer> tokenizer(new SpmTokenizer(fields));
  MNEMO_ASSIGN_OR_RETURN(tokenizer->adds_blank_, BoolOr(file, "tokenizer.ggml.add_space_prefix", true));
  tokenizer->strips_leading_space_ = tokenizer->adds_blank_;
  MNEMO_RETURN_IF_ERROR(tokenizer->FillPieces(file, fields));
  MNEMO_RETURN_IF_ERROR(tokenizer->RankPieces(file));
  tokenizer->splits_words_ = tokenizer->CanSplitWords();
  return tokenizer;
}

SpmTokenizer::SpmTokenizer(const VocabularyFields& fields)
    : VocabularyTokenizer(fields), unknown_id_(fields.unknown_id) {
  byte_ids_.fill(-1);
}

absl::Status SpmTokenizer::FillPieces(const GgufFile& file, const VocabularyFields& fields) {
  std::string text;
  for (size_t i = 0; i < fields.texts.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const TokenKind kind = fields.kinds[i];
    text.clear();
    if (kind == TokenKind::kByte) {
      const int byte = ParseByteToken(fields.texts[i]);
      if (byte < 0) {
        return InvalidArgument("{}: {}[{}] is a byte token and not written as <0x00> to <0xFF>", file.path(),
                               kTokensKey, i);
      }
      byte_ids_[static_cast<size_t>(byte)] = id;
      text.push_back(static_cast<char>(byte));
    } else if (IsControl(id)) {
      text = fields.texts[i];
      matcher_.Add(text, id, true);
    } else {
      AppendUnmarked(fields.texts[i], &text);
      has_unused_ = has_unused_ || kind == TokenKind::kUnused;
      if (kind == TokenKind::kUserDefined) user_defined_.Add(text, id, false);
      longest_ = std::max(longest_, text.size());
    }
    pieces_.Add(text);
  }
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (IsMergeable(kinds_[i]) && !pieces_[i].empty()) by_text_[ToAbsl(pieces_[i])] = static_cast<int32_t>(i);
  }
  const auto missing = std::count(byte_ids_.begin(), byte_ids_.end(), -1);
  has_bytes_ = missing == 0;
  if (missing != 0 && missing != 256) {
    return InvalidArgument("{}: {} has {} of the 256 byte tokens; all or none must be there", file.path(),
                           kTokensKey, 256 - missing);
  }
  if (!has_bytes_ && unknown_id_ < 0) {
    return InvalidArgument("{}: {} has no byte tokens, and there is no tokenizer.ggml.unknown_token_id",
                           file.path(), kTokensKey);
  }
  return absl::OkStatus();
}

absl::Status SpmTokenizer::RankPieces(const GgufFile& file) {
  if (file.Find(kScoresKey) == nullptr) {
    return InvalidArgument("{}: {} is absent; a SentencePiece vocabulary needs it", file.path(), kScoresKey);
  }
  MNEMO_ASSIGN_OR_RETURN(const std::vector<double> scores, file.GetFloats(kScoresKey));
  if (scores.size() != pieces_.size()) {
    return InvalidArgument("{}: {} has {} entries and {} has {}; they must be as many", file.path(),
                           kScoresKey, scores.size(), kTokensKey, pieces_.size());
  }
  std::vector<double> sorted;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i]))
      return InvalidArgument("{}: {}[{}] is not a number", file.path(), kScoresKey, i);
    sorted.push_back(scores[i]);
  }
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const double score : scores) {
    const auto place = std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>());
    ranks_.push_back(static_cast<uint32_t>(place - sorted.begin()));
  }
  return absl::OkStatus();
}

// Returns whether each word can be merged by itself with the same result: no merge would cross its edge.
bool SpmTokenizer::CanSplitWords() const {
  for (const auto& [text, id] : by_text_) {
    const TokenKind kind = kinds_[static_cast<size_t>(id)];
    if (kind == TokenKind::kUserDefined) continue;  // never merged: matched wherever it occurs
    if (kind == TokenKind::kUnused) return false;   // its latest split applies to the whole text
    const size_t visible = text.find_first_not_of(' ');
    if (visible != absl::string_view::npos && text.find(' ', visible) != absl::string_view::npos)
      return false;
  }
  return true;
}

MergeResult SpmTokenizer::Find(std::string_view text) const {
  if (text.size() > longest_) return {};
  const auto found = by_text_.find(ToAbsl(text));
  if (found == by_text_.end()) return {};
  return {ranks_[static_cast<size_t>(found->second)], found->second};
}

void SpmTokenizer::AppendUnknown(std::string_view bytes, Output* output) const {
  if (has_bytes_) {
    for (const char c : bytes) output->ids->push_back(byte_ids_[static_cast<uint8_t>(c)]);
    return;
  }
  if (output->unknown_end != output->ids->size()) output->ids->push_back(unknown_id_);
  output->unknown_end = output->ids->size();
}

// Merging may form an unused token on the way to another one, but the token must not remain. It is split
// again, and a single character counts as unknown.
void SpmTokenizer::AppendResegmented(std::string_view text, int32_t id, Output* output) const {
  if (id >= 0 && kinds_[static_cast<size_t>(id)] != TokenKind::kUnused) {
    output->ids->push_back(id);
    return;
  }
  const auto split = output->splits.find(ToAbsl(text));
  if (id < 0 || split == output->splits.end()) {
    AppendUnknown(text, output);
    return;
  }
  const std::string_view left = text.substr(0, split->second);
  const std::string_view right = text.substr(split->second);
  AppendResegmented(left, Find(left).id, output);
  AppendResegmented(right, Find(right).id, output);
}

void SpmTokenizer::Merge(std::string_view word, Output* output) const {
  std::vector<MergeSymbol>& symbols = output->scratch.symbols;
  symbols.clear();
  for (size_t at = 0; at < word.size();) {
    const uint32_t length = DecodeUtf8(word, at).length;
    symbols.push_back(
        {.begin = static_cast<uint32_t>(at), .length = length, .id = Find(word.substr(at, length)).id});
    at += length;
  }
  MergeSymbols(&output->scratch, [&](const MergeSymbol& left, const MergeSymbol& right) {
    const std::string_view text = word.substr(left.begin, left.length + right.length);
    const MergeResult merge = Find(text);
    if (merge.id >= 0 && kinds_[static_cast<size_t>(merge.id)] == TokenKind::kUnused) {
      output->splits[ToAbsl(text)] = left.length;
    }
    return merge;
  });
}

void SpmTokenizer::EncodeWord(std::string_view word, Output* output) const {
  const auto append = [&](const MergeSymbol& symbol) {
    AppendResegmented(word.substr(symbol.begin, symbol.length), symbol.id, output);
    return !output->is_full();
  };
  // The latest split of an unused token applies to all of the word.
  if (word.size() > output->options->window_bytes && !has_unused_) {
    const size_t begin = output->ids->size();
    const size_t unknown_end = output->unknown_end;
    const auto merge = [&](std::string_view stretch) { Merge(stretch, output); };
    if (MergeInWindows(word, output->options->window_bytes, &output->scratch, merge, append)) return;
    output->ids->resize(begin);
    output->unknown_end = unknown_end;
  }
  Merge(word, output);
  for (const MergeSymbol& symbol : output->scratch.symbols) append(symbol);
}

void SpmTokenizer::EncodeStretch(std::string_view stretch, Output* output) const {
  size_t begin = 0;
  if (splits_words_) {
    for (size_t at = 1; at < stretch.size() && !output->is_full(); ++at) {
      if (stretch[at] == ' ' && stretch[at - 1] != ' ') {
        EncodeWord(stretch.substr(begin, at - begin), output);
        begin = at;
      }
    }
  }
  if (begin < stretch.size() && !output->is_full()) EncodeWord(stretch.substr(begin), output);
}

void SpmTokenizer::EncodeFragment(std::string_view fragment, bool at_start, const EncodeOptions& options,
                                  std::vector<int32_t>* ids) const {
  std::string text;
  text.reserve(fragment.size() + 1);
  // Always at the start of a text. After a control token the models were trained with one blank as well,
  // whether this one or the template's own.
  const bool has_blank = fragment[0] == ' ' || fragment.starts_with(kBlankMark);
  if (adds_blank_ && (at_start || !has_blank)) text.push_back(' ');
  AppendUnmarked(fragment, &text);

  Output output{.ids = ids, .options = &options, .unknown_end = SIZE_MAX, .scratch = {}, .splits = {}};
  TokenMatcher::Search search(user_defined_, text, false, {});
  for (size_t at = 0; at < text.size() && !output.is_full();) {
    const TokenMatcher::Match match = search.Next();
    EncodeStretch(std::string_view(text).substr(at, match.begin - at), &output);
    if (match.id >= 0) ids->push_back(match.id);
    at = match.end;
  }
}

}  // namespace mnemo::model
