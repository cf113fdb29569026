#pragma once

#include <stdint.h>

#include <string>

namespace mnemo::layout {

// Returns the text of vectors.txt (README.md has its grammar): keys, records, queries, query blocks, and
// descriptors with their results, over all formats and operations. Depends only on the seed, on every
// machine.
std::string MakeVectors(uint64_t seed);

inline constexpr uint64_t kVectorSeed = 20260101;

}  // namespace mnemo::layout
