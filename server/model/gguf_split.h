// Models in several GGUF files, NAME-00001-of-0000N.gguf to NAME-0000N-of-0000N.gguf, as llama.cpp's
// gguf-split and the Python package gguf write them. The first part has the metadata; each part says in the
// keys `split.` which one it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/model/gguf.h"

namespace mnemo::model {

inline constexpr int64_t kMaxParts = 1024;  // each holds a descriptor

// A file's place in its set. A file with a count of 0 or 1, or none, is a model by itself.
struct Split {
  int64_t number = 0;                   // split.no, from 0
  int64_t count = 1;                    // split.count
  std::optional<int64_t> tensor_count;  // split.tensors.count: of all parts together
  bool several() const { return count > 1; }
};
// INVALID_ARGUMENT, naming the key, for a value out of its bounds or keys that contradict each other.
absl::StatusOr<Split> ReadSplit(const GgufFile& file);

// The parts of a path NAME-00002-of-00003.gguf: "NAME" with its folder, 2 and 3. nullopt for other names.
struct SplitName {
  std::string stem;
  int64_t number = 0;  // from 1
  int64_t count = 0;
};
std::optional<SplitName> ParseSplitName(std::string_view path);

// Paths of all parts of the model whose first part `file` is. A name that does not follow the pattern is
// looked for behind a symbolic link. INVALID_ARGUMENT when there is none, when name and keys differ, and for
// another part than the first, whose path the message names.
absl::StatusOr<std::vector<std::string>> PartPaths(const GgufFile& file, const Split& split);

// INVALID_ARGUMENT unless `part` can be the part `number` (from 0) of the model that `first` begins: it says
// so, and its metadata repeats what `first` says. Keys of `general.` that `first` does not have are passed
// over.
absl::Status CheckPart(const GgufFile& first, const Split& split, const GgufFile& part, int64_t number);

// The file's name without folder, extension and number of the part.
std::string ModelStem(const std::string& path);

}  // namespace mnemo::model
