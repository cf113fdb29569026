// SentencePiece BPE as GGUF stores it ("llama"). Characters are merged by score; text outside of the
// vocabulary becomes byte tokens.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/strings/string_view.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/merge.h"
#include "server/model/vocabulary.h"

namespace mnemo::model {

class SpmTokenizer : public VocabularyTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file,
                                                           std::string_view chat_template);

 protected:
  void EncodeFragment(std::string_view fragment, bool at_start, const EncodeOptions& options,
                      std::vector<int32_t>* ids) const override;

 private:
  struct Output;
  explicit SpmTokenizer(const VocabularyFields& fields);
  absl::Status FillPieces(const GgufFile& file, const VocabularyFields& fields);
  absl::Status RankPieces(const GgufFile& file);
  bool CanSplitWords() const;
  MergeResult Find(std::string_view text) const;
  void EncodeStretch(std::string_view stretch, Output* output) const;
  void EncodeWord(std::string_view word, Output* output) const;
  void Merge(std::string_view word, Output* output) const;
  void AppendUnknown(std::string_view bytes, Output* output) const;
  void AppendResegmented(std::string_view text, int32_t id, Output* output) const;

  // Tokens that merges may form. The keys refer to pieces_, in which the file's U+2581 is a blank.
  absl::flat_hash_map<absl::string_view, int32_t> by_text_;
  // Length of the longest key.
  size_t longest_ = 0;
  // By id: the lower rank merges first; equal scores have equal ranks.
  std::vector<uint32_t> ranks_;
  TokenMatcher user_defined_;
  std::array<int32_t, 256> byte_ids_;  // all set, or all -1
  bool has_bytes_ = false;
  const int32_t unknown_id_;
  // Adds a blank in front of a text.
  bool adds_blank_ = false;
  // Merges may form tokens that are split again.
  bool has_unused_ = false;
  // No merge crosses a blank that follows another character.
  bool splits_words_ = false;
};

}  // namespace mnemo::model
