#pragma once

// The jobs of scans with more scores than a bank holds, with what proto/layout answers to each.

#include <random>
#include <utility>
#include <vector>

#include "fpga/tests/select/selection_job.h"

namespace mnemo::rtl_select {

// The two jobs of a long scan. The first one's answer is the k best pages by the largest rank in each; the
// second one's that of all entries.
std::pair<Job, Job> LongScan(const Job& whole);

// The four jobs of a long scan with a first stage. The second of its two makes lists; then one measures the
// scores of all planes, and one selects among them.
std::vector<Job> LongCascade(const Job& whole, std::mt19937& rng);

// The two jobs of a long scan with a bound: the largest scores alone, then the ranks of all entries.
std::pair<Job, Job> LongBound(Job whole, std::mt19937& rng);

}  // namespace mnemo::rtl_select
