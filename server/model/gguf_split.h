// Models in several GGUF files, NAME-00001-of-0000N.gguf to NAME-0000N-of-0000N.gguf, as llama.cpp's
// gguf-split and the Python package gguf write them. The first part has the metadata. Keys `split.` in each
// part give its number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/gguf.h"

namespace mnemo::model {

inline constexpr int64_t kMaxParts = 1024;  // each part holds a descriptor

// A file's place in its set. A file with a count of 0, 1 or none is a model by itself.
struct Split {
  // split.no, from 0.
  int64_t number = 0;
  // split.count.
  int64_t count = 1;
  // split.tensors.count: the sum over all parts.
  std::optional<int64_t> tensor_count;
  bool several() const { return count > 1; }
};
// INVALID_ARGUMENT, naming the key, for a value out of range or keys that contradict each other.
absl::StatusOr<Split> ReadSplit(const GgufFile& file);

// The components of a path NAME-00002-of-00003.gguf: "NAME" with its folder, 2 and 3. nullopt for other
// names.
struct SplitName {
  std::string stem;
  // From 1.
  int64_t number = 0;
  int64_t count = 0;
};
std::optional<SplitName> ParseSplitName(std::string_view path);

// Returns the paths of all parts of the model whose first part is `file`. When the name does not follow the
// pattern, the target of a symbolic link is tried. INVALID_ARGUMENT when neither matches, when name and keys
// differ, and for a part other than the first; the message names the first part's path.
absl::StatusOr<std::vector<std::string>> PartPaths(const GgufFile& file, const Split& split);

// INVALID_ARGUMENT unless `part` can be part `number` (from 0) of the model that `first` begins: its keys say
// so, and its metadata agrees with that of `first`. Keys of `general.` that `first` lacks are ignored.
absl::Status CheckPart(const GgufFile& first, const Split& split, const GgufFile& part, int64_t number);

// Returns the file's name without folder, extension and part number.
std::string ModelStem(const std::string& path);

}  // namespace mnemo::model
