// Metadata keys of GGUF files: one table of what each does here. Reading, refusing, warning and
// docs/MODELS.md come from it. Defaults are those of the architecture's definition and of llama.cpp, the
// field's reference loader; where the two differ, the key is required.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/base/status.h"
#include "server/model/gguf.h"

namespace mnemo::model {

enum class KeyUse : uint8_t {
  kRead,     // decides numbers, ids or ends; where it is read its type and its range are checked
  kNeutral,  // could decide a number and is not supported: refused, but for the values that change nothing
  kWarned,   // decides no number here: warned of by name, but for the values that change nothing
  kIgnored,  // decides nothing
};

struct MetadataKey {
  // The part behind "<architecture>" when it begins with a dot, else the whole key. A trailing '*' stands for
  // any rest.
  std::string_view key;
  std::string_view architectures;  // comma-separated; empty: all
  KeyUse use = KeyUse::kRead;
  std::string_view type;
  // kRead of a number: the allowed range. kNeutral and kWarned: the two values that change nothing; bools are
  // 0 and 1.
  double min = 0;
  double max = 0;
  std::string_view absent;  // the default in words; "required"; a number for keys that are read as one
  std::string_view text;    // what the key does, or why it does nothing
  std::string_view neutral_text = {};  // kNeutral of a string: the value that changes nothing
};

std::span<const MetadataKey> MetadataKeys();

// The entry for a whole key of a file of that architecture; nullptr: the table has none.
const MetadataKey* FindMetadataKey(std::string_view key, std::string_view architecture);

// UNIMPLEMENTED names the first key, in alphabetical order, under "<architecture>." or "rope." or "general."
// that could decide a number and is not supported, and the values that are. A key that the table lacks is
// such a key unless it is 0, false or empty.
absl::Status CheckModelKeys(const GgufFile& file, std::string_view architecture);
// The same for keys under "tokenizer.".
absl::Status CheckTokenizerKeys(const GgufFile& file);

// One line a key that is present and not used, or absent and missed, naming it; alphabetical.
std::vector<std::string> MetadataWarnings(const GgufFile& file, std::string_view architecture);

}  // namespace mnemo::model
