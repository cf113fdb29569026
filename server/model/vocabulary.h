// Common part of both tokenizers: the tokens of the file, its control tokens, and the tokens that begin and
// end a text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"
#include "server/model/tokenizer.h"

namespace mnemo::model {

// Byte strings in one block of memory.
class PieceTable {
 public:
  void Add(std::string_view piece) {
    bytes_.append(piece);
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

// The keys tokenizer.ggml.* of a file, checked. The texts are views into the file.
struct VocabularyFields {
  std::vector<std::string_view> texts;
  // As many as texts.
  std::vector<TokenKind> kinds;
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  int32_t unknown_id = -1;
  // Ascending.
  std::vector<int32_t> end_ids;
  bool add_bos = false;
  bool add_eos = false;
  // As Tokenizer::notes.
  std::vector<std::string> notes;
};

// INVALID_ARGUMENT names the key, and the token where one is at fault. `add_bos_default` applies when the
// file has no add_bos_token. `chat_template`: as in Tokenizer::FromGguf. Missing ids are those of llama.cpp
// for the tokenizer, where the tokens there are special ones.
absl::StatusOr<VocabularyFields> ReadVocabularyFields(const GgufFile& file, bool add_bos_default,
                                                      std::string_view chat_template = {});
// Reads a key that may be absent; INVALID_ARGUMENT for another type.
absl::StatusOr<bool> BoolOr(const GgufFile& file, std::string_view key, bool absent);

// Finds token texts in a text: leftmost, then longest. Immutable and thread-safe.
class TokenMatcher {
 public:
  TokenMatcher() : roots_(256, 0), nodes_(1) {}
  // When several tokens have one text, the last counts. An empty text is ignored.
  void Add(std::string_view text, int32_t id, bool is_control);
  bool empty() const { return nodes_.size() == 1; }

  struct Match {
    size_t begin = 0;
    size_t end = 0;
    // -1: no match; begin and end are the end of the text.
    int32_t id = -1;
  };
  // Searches one text from front to back.
  class Search {
   public:
    // Control tokens match only with `parse_special`, and only outside of literal ranges.
    Search(const TokenMatcher& matcher, std::string_view text, bool parse_special,
           std::span<const ByteRange> literal)
        : matcher_(matcher), text_(text), parse_special_(parse_special), literal_(literal) {}
    Match Next();

   private:
    Match MatchAt(size_t begin) const;
    const TokenMatcher& matcher_;
    const std::string_view text_;
    const bool parse_special_;
    // Ranges that end after at_.
    std::span<const ByteRange> literal_;
    size_t at_ = 0;
  };

 private:
  // A byte trie; children are a list, since nearly all nodes have one child.
  struct Node {
    uint32_t child = 0;    // 0 = none
    uint32_t sibling = 0;  // 0 = none
    int32_t id = -1;
    uint8_t byte = 0;
    bool is_control = false;
  };
  uint32_t Child(uint32_t node, uint8_t byte) const;

  // [256]: node of each first byte; 0: none.
  std::vector<uint32_t> roots_;
  // [0] is unused.
  std::vector<Node> nodes_;
};

// The part of a tokenizer that does not depend on its algorithm.
class VocabularyTokenizer : public Tokenizer {
 public:
  std::string_view Piece(int32_t id) const override;
  TokenKind Kind(int32_t id) const override;
  int32_t size() const override { return static_cast<int32_t>(kinds_.size()); }
  bool strips_leading_space() const override { return strips_leading_space_; }
  bool default_add_special() const override { return add_bos_ || add_eos_; }
  int32_t bos_id() const override { return bos_id_; }
  std::span<const int32_t> end_ids() const override { return end_ids_; }
  std::span<const std::string> notes() const override { return notes_; }
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options) const override;

 protected:
  // Takes over the fields, except the pieces: the caller fills pieces_.
  explicit VocabularyTokenizer(const VocabularyFields& fields);
  // Appends the ids of a non-empty stretch of text without tokens of matcher_. `at_start`: it begins the
  // text; otherwise it follows a token of matcher_.
  virtual void EncodeFragment(std::string_view fragment, bool at_start, const EncodeOptions& options,
                              std::vector<int32_t>* ids) const = 0;

  PieceTable pieces_;
  TokenMatcher matcher_;
  std::vector<TokenKind> kinds_;
  bool strips_leading_space_ = false;

 private:
  bool add_bos_;
  bool add_eos_;
  int32_t bos_id_;
  int32_t eos_id_;
  std::vector<int32_t> end_ids_;
  std::vector<std::string> notes_;
};

}  // namespace mnemo::model
