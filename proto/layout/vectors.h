#pragma once

#include <stdint.h>

#include <string>

namespace mnemo::layout {

// The text of vectors.txt (README.md has its grammar): keys, records, queries, query blocks, and descriptors
// with the results they give, over all formats and operations. A function of the seed alone, on every
// machine.
std::string MakeVectors(uint64_t seed);

inline constexpr uint64_t kVectorSeed = 20260101;

}  // namespace mnemo::layout
