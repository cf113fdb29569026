// Text to token ids and back, as the model file specifies (tokenizer.ggml.*). mnemod owns text; workers see
// only ids.
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
  // Adds begin-of-text and the like, as the model file specifies (Tokenizer::default_add_special).
  bool add_special = false;
  // Control-token text becomes the control token.
  bool parse_special = false;
  // With parse_special: ranges (ascending, disjoint) whose bytes never become part of a control token, namely
  // the text of messages.
  std::span<const ByteRange> literal;
  // Encode ends soon after it has more ids than this. A result with more ids means that the text is too long
  // and has at least that many.
  size_t max_ids = SIZE_MAX;
  // A stretch of text without an edge is merged in windows of this size, which limits memory. The ids do not
  // depend on it.
  size_t window_bytes = 256 << 10;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Supports byte-level BPE (tokenizer.ggml.model "gpt2", pre-tokenizers gpt-2, smollm, llama-bpe, qwen2 and
  // their aliases) and SentencePiece ("llama"). `chat_template` is the text of a template used instead of the
  // file's own; its markers count as well. UNIMPLEMENTED names an unknown model or pre-tokenizer and lists
  // the known ones. INVALID_ARGUMENT reports a broken vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file,
                                                             std::string_view chat_template = {});

  // Accepts any bytes; bytes that are not UTF-8 survive a round trip through Decode.
  virtual std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options) const = 0;
  // Returns the raw bytes of one token, ids in [0, size()). For a control token its text ("<|im_end|>").
  virtual std::string_view Piece(int32_t id) const = 0;
  // Returns the file's type of the token, corrected where file, template and family contradict each other.
  virtual TokenKind Kind(int32_t id) const = 0;
  virtual int32_t size() const = 0;

  // Returns the bytes of a whole sequence, not yet made valid UTF-8. skip_special leaves out control tokens.
  // Removes the space that SentencePiece adds in front of a text (when the file says so).
  std::string DecodeBytes(std::span<const int32_t> ids, bool skip_special) const;
  // Returns DecodeBytes with every maximal malformed subsequence replaced by U+FFFD, as the Unicode standard
  // recommends.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  bool IsControl(int32_t id) const {
    return Kind(id) == TokenKind::kControl || Kind(id) == TokenKind::kUnknown;
  }
  // Returns true when Decode drops one leading space of a sequence's first visible token.
  virtual bool strips_leading_space() const = 0;
  // Returns the value of add_special for requests that do not set it: true when the file adds a begin or end
  // token.
  virtual bool default_add_special() const = 0;
  // -1: none.
  virtual int32_t bos_id() const = 0;
  // Tokens that end generation: eos, eot and eom of the file, the known ones of the model family, and the
  // chat template's marker after a message.
  virtual std::span<const int32_t> end_ids() const = 0;
  // Sentences for the log: contradictions of the file about its tokens, and how they were resolved.
  virtual std::span<const std::string> notes() const = 0;
};

}  // namespace mnemo::model
