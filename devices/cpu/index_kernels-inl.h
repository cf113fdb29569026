// The body of every file of index kernels: one core over vectors of the instruction set's width. The
// including file defines MNEMO_KERNELS_ISA and the macros of the available vectors.
#include <immintrin.h>

#include "devices/cpu/index_kernels.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"

namespace mnemo::devices::cpu {
namespace {

// The vectors come first.
// clang-format off
#include "devices/cpu/index_simd-inl.h"
#include "devices/cpu/index_scores-inl.h"
#include "devices/cpu/index_listed-inl.h"
#include "devices/cpu/index_select-inl.h"
#include "devices/cpu/index_codes-inl.h"
// clang-format on

constexpr IndexKernels kIndexKernels = {
    .isa = MNEMO_KERNELS_ISA,
    .make_record = MakeRecord,
    .make_query = MakeQuery,
    .score = Score,
    .largest = LargestScore,
    .largest_of_each = LargestOfEach,
    .ranks_max = RanksMax,
    .ranks_plain_max = RanksPlainMax,
    .ranks_exp2 = RanksExp2,
    .kth_rank = KthRank,
    .count_at_least = CountAtLeast,
    .collect = Collect,
};

}  // namespace
}  // namespace mnemo::devices::cpu
