// Metadata keys of GGUF files: one table of their effects. Reading, refusals, warnings and docs/MODELS.md
// come from it. Defaults are those of the architecture's definition and of llama.cpp, the reference loader of
// the field. Where the two differ, the key is required.
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
  // Determines numbers, ids or end tokens; its reader checks type and range.
  kRead,
  // Could change a number and is not supported: refused, except for values without effect.
  kNeutral,
  // Changes no number here: warned of by name, except for values without effect.
  kWarned,
  // Has no effect.
  kIgnored,
};

struct MetadataKey {
  // The part after "<architecture>" when it begins with a dot, else the whole key. A trailing '*' matches any
  // rest.
  std::string_view key;
  // Comma-separated; empty: all.
  std::string_view architectures;
  KeyUse use = KeyUse::kRead;
  std::string_view type;
  // kRead of a number: the allowed range. kNeutral and kWarned: the two values without effect; bools are 0
  // and 1.
  double min = 0;
  double max = 0;
  // The default in words; "required"; a number for keys that are read as one.
  std::string_view absent;
  // The effect of the key, or why it has none.
  std::string_view text;
  // kNeutral of a string: the value without effect.
  std::string_view neutral_text = {};
};

std::span<const MetadataKey> MetadataKeys();

// Returns the entry for a whole key in a file of that architecture; nullptr: not in the table.
const MetadataKey* FindMetadataKey(std::string_view key, std::string_view architecture);

// Checks keys under "<architecture>.", "rope." and "general.". UNIMPLEMENTED names the first key, in
// alphabetical order, that could change a number and is not supported, and its supported values. A key
// outside of the table is such a key unless it is 0, false or empty.
absl::Status CheckModelKeys(const GgufFile& file, std::string_view architecture);
// As CheckModelKeys, for keys under "tokenizer.".
absl::Status CheckTokenizerKeys(const GgufFile& file);

// Returns one line for each key that is present but not used, or absent but expected, naming it;
// alphabetical.
std::vector<std::string> MetadataWarnings(const GgufFile& file, std::string_view architecture);

}  // namespace mnemo::model
