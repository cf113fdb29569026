// The body of every kernel file: the portable core over the vectors of simd-inl.h. The including file defines
// MNEMO_KERNELS_ISA and the macros that simd-inl.h needs. All of it is in an anonymous namespace.
#include <immintrin.h>

#include "devices/cpu/kernels.h"

namespace mnemo::devices::cpu {
namespace {

// The vectors come first.
// clang-format off
#include "devices/cpu/simd-inl.h"
#include "devices/cpu/keys-inl.h"
#include "devices/cpu/rows-inl.h"
#include "devices/cpu/matmul-inl.h"
#include "devices/cpu/values-inl.h"
#include "devices/cpu/attention-inl.h"
#include "devices/cpu/listed-inl.h"
// clang-format on

constexpr Kernels kKernels = {
    .isa = MNEMO_KERNELS_ISA,
    .norm_row = NormRow,
    .quantize_row = QuantizeRow,
    .matmul = MatMul,
    .rotary_row = RotaryRow,
    .store_row = StoreRow,
    .scale_row = ScaleRow,
    .quantize_query = QuantizeQuery,
    .attend = Attend,
    .attend_listed = AttendListed,
    .merge_state = MergeState,
    .finish_state = FinishState,
};

}  // namespace
}  // namespace mnemo::devices::cpu
