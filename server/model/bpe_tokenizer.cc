#include "server/model/bpe_tokenizer.h"

#include <absl/strings/str_join.h>

#include <algorithm>

#include "server/model/utf8.h"

namespace mnemo::model {
namespace {

constexpr std::string_view kPreKey = "tokenizer.ggml.pre";
constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

// The byte alphabet of GPT-2: printable Latin-1 characters represent themselves. The other bytes, in
// ascending order, are U+0100 and following.
class ByteAlphabet {
 public:
  static const ByteAlphabet& Get() {
    static const ByteAlphabet alphabet;
    return alphabet;
  }
  // Returns the byte that a character represents; -1: none.
  int ByteOf(uint32_t code_point) const { return code_point < bytes_.size() ? bytes_[code_point] : -1; }

 private:
  ByteAlphabet() {
    bytes_.fill(-1);
    uint32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      bytes_[printable ? static_cast<uint32_t>(byte) : next++] = static_cast<int16_t>(byte);
    }
  }
  std::array<int16_t, 0x100 + 68> bytes_;
};

// Returns the bytes of a token written in the byte alphabet; a character outside of it represents itself.
std::string DecodeAlphabet(std::string_view text) {
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    const int byte = c.code_point == kMalformed ? -1 : ByteAlphabet::Get().ByteOf(c.code_point);
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      bytes.append(text.substr(at, c.length));
    }
    at += c.length;
  }
  return bytes;
}

bool IsEncodable(TokenKind kind) { return kind == TokenKind::kNormal || kind == TokenKind::kByte; }

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(const GgufFile& file,
                                                                std::string_view chat_template) {
  std::string_view name = "default";
  if (file.Find(kPreKey) != nullptr) {
    MNEMO_ASSIGN_OR_RETURN(name, file.GetString(kPreKey));
  }
  const std::optional<PreTokenizer> pre = FindPreTokenizer(name);
  if (!pre.has_value()) {
    return Unimplemented("{}: {} \"{}\" is not supported; known are {}", file.path(), kPreKey, name,
                         fmt::join(PreTokenizerNames(), ", "));
  }
  constexpr std::string_view kBlankKey = "tokenizer.ggml.add_space_prefix";
  MNEMO_ASSIGN_OR_RETURN(const bool adds_blank, BoolOr(file, kBlankKey, false));
  if (adds_blank) return Unimplemented("{}: {} is not supported with byte-level BPE", file.path(), kBlankKey);
  MNEMO_ASSIGN_OR_RETURN(const VocabularyFields fields,
                         ReadVocabularyFields(file, pre->begins_by_default, chat_template));
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(fields, *pre));
  tokenizer->FillPieces(fields);
  MNEMO_RETURN_IF_ERROR(tokenizer->ReadMerges(file, fields));
  tokenizer->FindWholePieces();
  return tokenizer;
}

BpeTokenizer::BpeTokenizer(const VocabularyFields& fields, const PreTokenizer& pre)
    : VocabularyTokenizer(fields), pre_(pre) {
  byte_ids_.fill(-1);
}

void BpeTokenizer::FillPieces(const VocabularyFields& fields) {
  for (size_t i = 0; i < fields.texts.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const TokenKind kind = fields.kinds[i];
    if (!IsEncodable(kind)) {
      pieces_.Add(fields.texts[i]);
      if (kind != TokenKind::kUnused) matcher_.Add(fields.texts[i], id, IsControl(id));
      continue;
    }
    pieces_.Add(DecodeAlphabet(fields.texts[i]));
    const std::string_view piece = pieces_[i];
    if (piece.size() == 1) byte_ids_[static_cast<uint8_t>(piece[0])] = id;
  }
}

absl::Status BpeTokenizer::ReadMerges(const GgufFile& file, const VocabularyFields& fields) {
  if (file.Find(kMergesKey) == nullptr) {
    // Without a token of several bytes there is nothing to merge.
    for (size_t i = 0; i < fields.texts.size(); ++i) {
      if (!IsEncodable(fields.kinds[i]) || pieces_[i].size() <= 1) continue;
      return InvalidArgument("{}: {} is absent, and token {} has {} bytes, which only merges make",
                             file.path(), kMergesKey, i, pieces_[i].size());
    }
    return absl::OkStatus();
  }
  MNEMO_ASSIGN_OR_RETURN(const std::vector<std::string_view> merges, file.GetStrings(kMergesKey));
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  ids.reserve(fields.texts.size());
  for (size_t i = 0; i < fields.texts.size(); ++i) {
    if (IsEncodable(fields.kinds[i])) ids[ToAbsl(fields.texts[i])] = static_cast<int32_t>(i);
  }
  merges_.reserve(merges.size());
  std::string joint;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    // A blank is not in the byte alphabet, so the first blank after the first byte separates the two tokens.
    const size_t blank = merge.find(' ', 1);
    if (blank == std::string_view::npos || blank + 1 == merge.size()) {
      return InvalidArgument("{}: {}[{}] is not two tokens with a blank between them", file.path(),
                             kMergesKey, rank);
    }
    joint.assign(merge.substr(0, blank));
    joint.append(merge.substr(blank + 1));
    const auto left = ids.find(ToAbsl(merge.substr(0, blank)));
    const auto right = ids.find(ToAbsl(merge.substr(blank + 1)));
    const auto both = ids.find(joint);
    if (left == ids.end() || right == ids.end() || both == ids.end()) {
      return InvalidArgument("{}: {}[{}] has a part or a result that is no normal token of the vocabulary",
                             file.path(), kMergesKey, rank);
    }
    merges_.insert_or_assign(PairKey(left->second, right->second),
                             MergeResult{static_cast<uint32_t>(rank), both->second});
  }
  return absl::OkStatus();
}

// A piece whose merges end in one token is looked up instead of merged. In a family with whole_piece_first,
// every token qualifies.
void BpeTokenizer::FindWholePieces() {
  MergeScratch scratch;
  whole_pieces_.reserve(kinds_.size());
  for (size_t i = 0; i < kinds_.size(); ++i) {
    const std::string_view piece = pieces_[i];
    if (!IsEncodable(kinds_[i]) || piece.empty()) continue;
    if (!pre_.whole_piece_first) {
      Merge(piece, &scratch);
      if (scratch.symbols.size() != 1 || scratch.symbols[0].id != static_cast<int32_t>(i)) continue;
    }
    whole_pieces_[ToAbsl(piece)] = static_cast<int32_t>(i);
    longest_whole_piece_ = std::max(longest_whole_piece_, piece.size());
  }
}

void BpeTokenizer::Merge(std::string_view piece, MergeScratch* scratch) const {
  scratch->symbols.clear();
  uint32_t at = 0;
  for (const char c : piece) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    if (id >= 0) scratch->symbols.push_back({.begin = at++, .length = 1, .id = id});
  }
  MergeSymbols(scratch, [this](const MergeSymbol& left, const MergeSymbol& right) {
    const auto merge = merges_.find(PairKey(left.id, right.id));
    return merge == merges_.end() ? MergeResult() : merge->second;
  });
}

void BpeTokenizer::EncodeLong(std::string_view piece, const EncodeOptions& options, MergeScratch* scratch,
                              std::vector<int32_t>* ids) const {
  // Bytes without a token are removed, so that symbols and text have the same positions.
  std::string encodable;
  if (std::find(byte_ids_.begin(), byte_ids_.end(), -1) != byte_ids_.end()) {
    encodable.reserve(piece.size());
    for (const char c : piece) {
      if (byte_ids_[static_cast<uint8_t>(c)] >= 0) encodable.push_back(c);
    }
    piece = encodable;
  }
  const size_t begin = ids->size();
  const auto append = [&](const MergeSymbol& symbol) {
    ids->push_back(symbol.id);
    return ids->size() <= options.max_ids;
  };
  const auto merge = [&](std::string_view stretch) { Merge(stretch, scratch); };
  if (MergeInWindows(piece, options.window_bytes, scratch, merge, append)) return;
  ids->resize(begin);
  Merge(piece, scratch);
  for (const MergeSymbol& symbol : scratch->symbols) ids->push_back(symbol.id);
}

void BpeTokenizer::EncodeFragment(std::string_view fragment, bool /*at_start*/, const EncodeOptions& options,
                                  std::vector<int32_t>* ids) const {
  std::string normalized;
  if (pre_.normalizes && Unicode::Get().MayNeedNfc(fragment)) {
    normalized = Unicode::Get().Nfc(fragment);
    fragment = normalized;
  }
  MergeScratch scratch;
  PieceScanner scanner(pre_, fragment);
  while (!scanner.done() && ids->size() <= options.max_ids) {
    const std::string_view piece = scanner.Next();
    if (piece.size() <= longest_whole_piece_) {
      const auto whole = whole_pieces_.find(ToAbsl(piece));
      if (whole != whole_pieces_.end()) {
        ids->push_back(whole->second);
        continue;
      }
    }
    if (piece.size() > options.window_bytes) {
      EncodeLong(piece, options, &scratch, ids);
      continue;
    }
    Merge(piece, &scratch);
    for (const MergeSymbol& symbol : scratch.symbols) ids->push_back(symbol.id);
  }
}

}  // namespace mnemo::model
