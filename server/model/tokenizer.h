// Text to token ids and back, as the model file says (tokenizer.ggml.*). mnemod owns text; workers see ids
// only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"

namespace mnemo::model {

// Values of tokenizer.ggml.token_type.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

// A byte range [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

struct EncodeOptions {
  bool add_special =
      false;  // begin-of-text and the like, as the model file says (Tokenizer::default_add_special)
  bool parse_special = false;  // control-token text becomes the control token
  // With parse_special: ranges (ascending, disjoint) whose bytes never become part of a control token: what
  // came from messages.
  std::span<const ByteRange> literal;
  // Encode ends soon after it has more ids than this: an answer with more is one that is too long, of so many
  // at least.
  size_t max_ids = SIZE_MAX;
  // A stretch of text without an edge is merged in windows of so many bytes, which bounds the memory for it.
  // The ids do not depend on it.
  size_t window_bytes = 256 << 10;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Byte-level BPE (tokenizer.ggml.model "gpt2", pre-tokenizers gpt-2, smollm, llama-bpe, qwen2 and their
  // aliases) and SentencePiece
  // ("llama"). UNIMPLEMENTED names an unknown model or pre-tokenizer and lists the known ones;
  // INVALID_ARGUMENT for a broken vocabulary.
  // `chat_template`: text of a template that is used instead of the file's own; its markers count as well.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file,
                                                             std::string_view chat_template = {});

  // Any bytes are accepted; bytes that are not UTF-8 survive a round trip through Decode.
  virtual std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options) const = 0;
  // Raw bytes of one token, ids in [0, size()). For a control token its text ("<|im_end|>").
  virtual std::string_view Piece(int32_t id) const = 0;
  // The file's type of the token, corrected where file, template and family contradict each other.
  virtual TokenKind Kind(int32_t id) const = 0;
  virtual int32_t size() const = 0;

  // Bytes of a whole sequence, not yet made valid UTF-8. Control tokens are left out when skip_special. The
  // space that SentencePiece puts in front of a text (when the file says so) is taken away again.
  std::string DecodeBytes(std::span<const int32_t> ids, bool skip_special) const;
  // DecodeBytes with every maximal malformed subsequence replaced by U+FFFD, as the Unicode standard
  // recommends.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  bool IsControl(int32_t id) const {
    return Kind(id) == TokenKind::kControl || Kind(id) == TokenKind::kUnknown;
  }
  // True when Decode drops one leading space of a sequence's first visible token.
  virtual bool strips_leading_space() const = 0;
  // What add_special means when the request does not say: true when the file adds a begin or end token.
  virtual bool default_add_special() const = 0;
  virtual int32_t bos_id() const = 0;  // -1 = none
  // Any of them ends generation: eos, eot, eom of the file, those the model family is known by, and what the
  // chat template puts behind a message.
  virtual std::span<const int32_t> end_ids() const = 0;
  // Sentences for the log: where the file contradicts itself about its tokens, and what is held instead.
  virtual std::span<const std::string> notes() const = 0;
};

}  // namespace mnemo::model
