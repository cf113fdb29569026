#include "server/model/tokenizer.h"

#include "server/model/bpe_tokenizer.h"
#include "server/model/metadata_keys.h"
#include "server/model/spm_tokenizer.h"
#include "server/model/text_stream.h"

namespace mnemo::model {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file,
                                                               std::string_view chat_template) {
  constexpr std::string_view kModelKey = "tokenizer.ggml.model";
  if (file.Find(kModelKey) == nullptr) {
    return InvalidArgument("{}: {} is absent: the file has no vocabulary", file.path(), kModelKey);
  }
  MNEMO_ASSIGN_OR_RETURN(const std::string_view model, file.GetString(kModelKey));
  MNEMO_RETURN_IF_ERROR(CheckTokenizerKeys(file));
  if (model == "gpt2") return BpeTokenizer::Create(file, chat_template);
  if (model == "llama") return SpmTokenizer::Create(file, chat_template);
  return Unimplemented(
      "{}: {} \"{}\" is not supported; known are gpt2 (byte-level BPE) and llama (SentencePiece)",
      file.path(), kModelKey, model);
}

std::string Tokenizer::DecodeBytes(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  bool at_start = true;
  for (const int32_t id : ids) {
    if (skip_special && IsControl(id)) continue;
    std::string_view piece = Piece(id);
    if (at_start && !piece.empty()) {
      at_start = false;
      if (strips_leading_space() && !IsControl(id) && piece.starts_with(' ')) piece.remove_prefix(1);
    }
    bytes.append(piece);
  }
  return bytes;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  const std::string bytes = DecodeBytes(ids, skip_special);
  std::string text;
  text.reserve(bytes.size());
  AppendValidUtf8(bytes, true, &text);
  return text;
}

}  // namespace mnemo::model
