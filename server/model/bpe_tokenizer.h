// Byte-level BPE ("gpt2" in GGUF): the bytes of each piece of text are merged by rank.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/strings/string_view.h>

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "server/model/merge.h"
#include "server/model/pretokenizer.h"
#include "server/model/vocabulary.h"

namespace mnemo::model {

class BpeTokenizer : public VocabularyTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file,
                                                           std::string_view chat_template);

 protected:
  void EncodeFragment(std::string_view fragment, bool at_start, const EncodeOptions& options,
                      std::vector<int32_t>* ids) const override;

 private:
  BpeTokenizer(const VocabularyFields& fields, const PreTokenizer& pre);
  void FillPieces(const VocabularyFields& fields);
  absl::Status ReadMerges(const GgufFile& file, const VocabularyFields& fields);
  void FindWholePieces();
  void Merge(std::string_view piece, MergeScratch* scratch) const;
  void EncodeLong(std::string_view piece, const EncodeOptions& options, MergeScratch* scratch,
                  std::vector<int32_t>* ids) const;

  const PreTokenizer pre_;
  // Token of each byte; -1: the vocabulary has none, and the byte is dropped, as in the reference.
  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, MergeResult> merges_;  // by (left id << 32 | right id)
  // Pieces that are one token. The keys refer to the bytes of pieces_.
  absl::flat_hash_map<absl::string_view, int32_t> whole_pieces_;
  size_t longest_whole_piece_ = 0;
};

}  // namespace mnemo::model
